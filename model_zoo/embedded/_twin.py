"""Twins: how one is made, and how one is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from harness import config
from model_zoo.base.captioner import HFCaptioner
from model_zoo.embedded._pretrain import Recipe, Teach

TEXT: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.05,
}
"""Sizes of the twins' language models, so far as they are alike."""
VISION: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 64,
    "patch_size": 16,
}
"""Sizes of their vision towers."""


@dataclass(frozen=True)
class Twin:
    """`write` a folder of random weights, `begin` the training, `teach` by the `recipe`, `save` what was trained."""

    write: Callable[[Path], None]
    teach: Teach
    recipe: Recipe
    begin: Callable[[HFCaptioner], None] | None = None
    save: Callable[[Any, Path], None] = PreTrainedModel.save_pretrained


def open_twin(name: str, folder: Path) -> HFCaptioner:
    """The captioner of conf/model/NAME.yaml over any folder, each part of it in a subfolder or all in one."""
    parts = {part.name: part for part in folder.iterdir() if part.is_dir()} or {"hub": folder}
    places = [f"model.{key}={place}" for key, place in parts.items()]
    (cell,) = config.cells("run", [f"model={name}", "weights=hub", "model.dtype=float32", *places])
    captioner: HFCaptioner = config.build(cell, "model")
    return captioner
