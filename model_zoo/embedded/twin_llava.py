"""LLaVA's twins: 0.6 million parameters each."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import decoders, pre_tokenizers, processors  # type: ignore[import-untyped]
from transformers import (
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    PreTrainedTokenizerFast,
)

from model_zoo.embedded._pretrain import Recipe
from model_zoo.embedded._twin import TEXT, Twin
from model_zoo.embedded._words import describe_or_list, train_tokenizer

SIDE = 64
PATCH = 16
PINPOINTS = [[64, 64], [64, 128], [128, 64]]
"""A square picture is one tile and the whole, 36 tokens; a long one has two tiles."""
VICUNA = (
    " A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions.",
    " USER:",
    " ASSISTANT:",
)
"""The system text, and who speaks."""


def write_15(folder: Path) -> None:
    """16 image tokens and a Llama."""
    tokenizer = write_tokenizer(folder)
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    LlavaForConditionalGeneration(LlavaConfig(**parts(tokenizer, "llama"))).save_pretrained(folder)


def write_16(folder: Path, text: str, vocabulary: int = 600, words: tuple[str, ...] = ()) -> None:
    """The tiled kind. `text` is the model type of the language model, `words` what its tokenizer must know."""
    tokenizer = write_tokenizer(folder, vocabulary, words)
    square = {"height": SIDE, "width": SIDE}
    images = LlavaNextImageProcessor(size={"shortest_edge": SIDE}, crop_size=square, image_grid_pinpoints=PINPOINTS)
    images.save_pretrained(folder)
    config = LlavaNextConfig(**parts(tokenizer, text), image_grid_pinpoints=PINPOINTS)
    LlavaNextForConditionalGeneration(config).save_pretrained(folder)


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
            "num_hidden_layers": 2,
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
            "model_type": "clip_vision_model",
            "hidden_size": 80,
            "intermediate_size": 160,
            "projection_dim": 16,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": PATCH,
        },
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "image_seq_length": (SIDE // PATCH) ** 2,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
    }


RECIPE = Recipe(pictures=10000, steps=5000)
CHECKPOINTS = {
    "llava_15": Twin(write_15, describe_or_list, replace(RECIPE, steps=6000)),
    "llava_mistral": Twin(partial(write_16, text="mistral"), describe_or_list, RECIPE),
    "llava_vicuna": Twin(partial(write_16, text="llama", vocabulary=700, words=VICUNA), describe_or_list, RECIPE),
}
