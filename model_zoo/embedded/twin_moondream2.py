"""MoonDream2's twin: half a million parameters."""

from __future__ import annotations

from pathlib import Path

from model_zoo.embedded._pretrain import Recipe
from model_zoo.embedded._twin import TEXT, VISION, Twin
from model_zoo.embedded._words import describe_or_list, write_gpt2_tokenizer
from model_zoo.nets.moondream2 import MoondreamConfig, MoondreamNet


def write(folder: Path) -> None:
    """64 pixels in patches of 16: the phantoms' 128 pixels are a whole and four tiles."""
    positions = 2048
    vocabulary = write_gpt2_tokenizer(folder, positions)
    text = {
        **TEXT,
        "vocab_size": vocabulary,
        "num_hidden_layers": 3,
        "max_position_embeddings": positions,
        "bos_token_id": vocabulary - 1,
        "eos_token_id": vocabulary - 1,
    }
    config = MoondreamConfig(text, VISION, initializer_range=0.08)
    MoondreamNet(config, tiled=True, fused=True).save_pretrained(folder)


CHECKPOINTS = {"moondream2": Twin(write, describe_or_list, Recipe(pictures=10000, steps=5500, rate=3e-3))}
