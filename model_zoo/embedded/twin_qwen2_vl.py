"""Qwen2-VL's twin: half a million parameters."""

from __future__ import annotations

from pathlib import Path

from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from model_zoo.embedded._pretrain import Recipe
from model_zoo.embedded._qwen import MERGE, PATCHES, marks, text_config, write_processors
from model_zoo.embedded._twin import Twin
from model_zoo.embedded._words import describe_or_list


def write(folder: Path) -> None:
    """The proportions of the real one, as far as they can be kept."""
    tokenizer = write_processors(folder)
    text = text_config(tokenizer)
    vision = {
        **PATCHES,
        "spatial_merge_size": MERGE,
        "depth": 3,
        "embed_dim": 64,
        "hidden_size": text["hidden_size"],
        "num_heads": 4,
        "mlp_ratio": 2,
        "initializer_range": 0.05,
    }
    config = Qwen2VLConfig(text_config=text, vision_config=vision, **marks(tokenizer))
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)


TWIN = Twin(write, describe_or_list, Recipe(pictures=6000, steps=3500))
