"""How a twin is made, in five parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model_zoo._hf import HFCaptioner
from model_zoo.embedded._pretrain import Recipe, Teach


@dataclass(frozen=True)
class Twin:
    """`write` a folder of random weights, `open` it as a captioner, `begin` its training, `save` it when trained."""

    write: Callable[[Path], None]
    open: Callable[[Path], HFCaptioner]
    save: Callable[[HFCaptioner, Path], None]
    teach: Teach
    recipe: Recipe
    begin: Callable[[HFCaptioner], None] | None = None


def save_whole(captioner: HFCaptioner, folder: Path) -> None:
    """Save a captioner that is one checkpoint."""
    captioner.model.save_pretrained(folder)  # type: ignore[operator]
