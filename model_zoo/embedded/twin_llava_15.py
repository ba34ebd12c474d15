"""LLaVA-1.5's twin: 0.6 million parameters."""

from __future__ import annotations

from pathlib import Path

from model_zoo._hf import HFCaptioner
from model_zoo.embedded._llava import write_15
from model_zoo.embedded._pretrain import Recipe
from model_zoo.embedded._twin import Twin, save_whole
from model_zoo.embedded._words import describe_or_list
from model_zoo.llava import Llava

TEMPLATE = "USER: {images}{question} ASSISTANT:"


def open_folder(folder: Path) -> HFCaptioner:
    """As the yaml does, but from any folder."""
    return Llava("llava_15", "LVLM", "hub", str(folder), None, "float32", "sdpa", TEMPLATE, "pad")


TWIN = Twin(
    write_15, open_folder, save_whole, describe_or_list, Recipe(pictures=10000, steps=6000, batch=16, rate=2e-3)
)
