"""LLaVA's twins: 0.6 million parameters each."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import decoders, pre_tokenizers, processors  # type: ignore[import-untyped]
from transformers import PreTrainedTokenizerFast

from model_zoo.embedded._pretrain import Recipe
from model_zoo.embedded._twin import TEXT, VISION, Twin
from model_zoo.embedded._words import describe_or_list, train_tokenizer
from model_zoo.llava import Llava, LlavaFamily, LlavaNext

SIDE, PATCH = VISION["image_size"], VISION["patch_size"]
PINPOINTS = [[64, 64], [64, 128], [128, 64]]
"""A square picture is one tile and the whole, 36 tokens; a long one has two tiles."""
SPOKEN = (
    " A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions.",
    " USER:",
    " ASSISTANT:",
)
"""Vicuna's system text, and who speaks."""


def write(
    folder: Path, family: type[LlavaFamily], text: str, vocabulary: int = 600, words: tuple[str, ...] = ()
) -> None:
    """16 image tokens a tile. text: the model type of the language model; words: what its tokenizer must know."""
    tokenizer = write_tokenizer(folder, vocabulary, words)
    tiles = {"image_grid_pinpoints": PINPOINTS} if family is LlavaNext else {}
    square = {"height": SIDE, "width": SIDE}
    images = family.image_processor_class(size={"shortest_edge": SIDE}, crop_size=square, **tiles)
    images.save_pretrained(folder)
    config = family.config_class(**parts(tokenizer, text), **tiles)
    family.model_class(config).save_pretrained(folder)


def write_tokenizer(folder: Path, vocabulary: int = 600, words: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Like Llama's: starts a prompt with <s>, puts a blank before each text and takes it off again."""
    special = ["<unk>", "<s>", "</s>", "<image>", "<pad>"]
    trained = train_tokenizer(special, words, times=5000, vocabulary=vocabulary)
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trained.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trained.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained,
        add_prefix_space=True,
        unk_token=special[0],
        bos_token=special[1],
        eos_token=special[2],
        additional_special_tokens=[special[3]],
        pad_token=special[4],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def parts(tokenizer: PreTrainedTokenizerFast, text: str) -> dict[str, Any]:
    """The proportions of the real ones, as far as they can be kept; the last of four CLIP layers is not read."""
    return {
        "text_config": {
            **TEXT,
            "model_type": text,
            "vocab_size": len(tokenizer),
            "num_key_value_heads": 2 if text == "mistral" else 4,
            "head_dim": 24,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": False,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **({"sliding_window": None} if text == "mistral" else {}),
        },
        "vision_config": {
            **VISION,
            "model_type": "clip_vision_model",
            "hidden_size": 80,
            "intermediate_size": 160,
            "projection_dim": 16,
            "num_hidden_layers": 4,
        },
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "image_seq_length": (SIDE // PATCH) ** 2,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
    }


RECIPE = Recipe(pictures=10000, steps=5000)
VICUNA = partial(write, family=LlavaNext, text="llama", vocabulary=700, words=SPOKEN)
CHECKPOINTS = {
    "llava_15": Twin(partial(write, family=Llava, text="llama"), describe_or_list, replace(RECIPE, steps=6000)),
    "llava_mistral": Twin(partial(write, family=LlavaNext, text="mistral"), describe_or_list, RECIPE),
    "llava_vicuna": Twin(VICUNA, describe_or_list, RECIPE),
}
