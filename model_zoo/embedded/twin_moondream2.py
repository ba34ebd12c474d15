"""MoonDream2's twin: half a million parameters."""

from __future__ import annotations

from pathlib import Path

from model_zoo._hf import HFCaptioner
from model_zoo._moondream2_net import MoondreamConfig, MoondreamNet
from model_zoo.embedded._pretrain import Recipe
from model_zoo.embedded._twin import Twin, save_whole
from model_zoo.embedded._words import describe_or_list, write_gpt2_tokenizer
from model_zoo.moondream2 import Moondream2


def write(folder: Path) -> None:
    """64 pixels in patches of 16: the phantoms' 128 pixels are a whole and four tiles."""
    positions = 2048
    vocabulary = write_gpt2_tokenizer(folder, positions)
    text = {
        "vocab_size": vocabulary,
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": positions,
        "initializer_range": 0.05,
        "bos_token_id": vocabulary - 1,
        "eos_token_id": vocabulary - 1,
    }
    vision = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 16,
    }
    config = MoondreamConfig(text, vision, initializer_range=0.08)
    MoondreamNet(config, tiled=True, fused=True).save_pretrained(folder)


def open_folder(folder: Path) -> HFCaptioner:
    """As the yaml does, but from any folder."""
    return Moondream2("moondream2", "SVLM", "hub", str(folder), None, "float32", "sdpa", "later", True)


TWIN = Twin(write, open_folder, save_whole, describe_or_list, Recipe(pictures=10000, steps=5500, batch=16, rate=3e-3))
