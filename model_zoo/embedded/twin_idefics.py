"""IDEFICS' twin: 0.6 million parameters."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import decoders, normalizers  # type: ignore[import-untyped]
from transformers import IdeficsConfig, IdeficsForVisionText2Text, IdeficsImageProcessor, LlamaTokenizerFast

from model_zoo.base.captioner import HFCaptioner
from model_zoo.base.checkpoint import TWINS
from model_zoo.embedded._pretrain import Recipe
from model_zoo.embedded._twin import TEXT, Twin, open_twin
from model_zoo.embedded._words import QUESTIONS, describe_or_list, train_tokenizer
from model_zoo.embedded.twin_llava import PATCH, SIDE
from model_zoo.idefics import END, FAKE, IMAGE

ADDED = [FAKE, IMAGE, END]


def write(folder: Path) -> None:
    """LLaVA's 64 pixels in patches of 16, which a perceiver sums up in 16 latents."""
    tokenizer = write_tokenizer(folder)
    IdeficsImageProcessor(image_size=SIDE).save_pretrained(folder)
    IdeficsForVisionText2Text(config(len(tokenizer) - len(ADDED))).save_pretrained(folder)


def write_tokenizer(folder: Path) -> LlamaTokenizerFast:
    """Like Llama's: puts a blank before each text and takes it off again; the ids of the added tokens are the last."""
    special = ["<unk>", "<s>", "</s>"]
    spoken = [" User:", " \nAssistant:", *(f" {question}" for question in QUESTIONS)]
    trained = train_tokenizer(special, spoken, times=3000)
    trained.normalizer = normalizers.Prepend(" ")
    trained.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    tokenizer = LlamaTokenizerFast(
        tokenizer_object=trained,
        unk_token=special[0],
        bos_token=special[1],
        eos_token=special[2],
        pad_token=special[0],
        additional_special_tokens=ADDED,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        legacy=True,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def config(words: int) -> IdeficsConfig:
    """The proportions of the real one, but a cross-attention before each layer and its gates open."""
    return IdeficsConfig(
        vocab_size=words,
        additional_vocab_size=len(ADDED),
        **(TEXT | {"intermediate_size": 96}),
        # From nothing, a closed gate would keep the picture out until it opens.
        alpha_initializer="ones",
        cross_layer_interval=1,
        qk_layer_norms=True,
        freeze_text_layers=False,
        freeze_vision_layers=False,
        use_resampler=True,
        vision_config={
            "embed_dim": 80,
            "image_size": SIDE,
            "patch_size": PATCH,
            "intermediate_size": 160,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "hidden_act": "quick_gelu",
        },
        perceiver_config={
            "use_resampler": True,
            "resampler_n_latents": 16,
            "resampler_depth": 1,
            "resampler_n_heads": 4,
            "resampler_head_dim": 16,
            "qk_layer_norms_perceiver": True,
        },
    )


def begin(captioner: HFCaptioner) -> None:
    """Start from the vision tower of LLaVA's twin, without its unread last layer; the real one started from CLIP, too.

    From nothing, the detour through the perceiver takes far more steps to find what a picture shows.
    """
    earlier = open_twin("llava_15", TWINS / "llava_15")
    earlier.load("cpu")
    seen = earlier.model.get_submodule("model.vision_tower.vision_model").state_dict()
    tower = captioner.model.get_submodule("model.vision_model")
    tower.load_state_dict({name: seen[name] for name in tower.state_dict()})
    # At their usual size, the latents would outweigh what they gather.
    torch.nn.init.normal_(captioner.model.get_parameter("model.perceiver_resampler.latents"), std=0.1)


CHECKPOINTS = {"idefics_9b": Twin(write, describe_or_list, Recipe(pictures=10000, steps=6500), begin)}
