"""What the captioner tests share: building from conf/, pictures of odd sizes, copies of the twins."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from harness import config
from harness.contracts import Decoding, Example
from model_zoo.base import checkpoint
from model_zoo.base.captioner import IGNORED, HFCaptioner

CONF = Path(__file__).parents[2] / "conf" / "model"
NAMES = sorted(path.stem for path in CONF.rglob("*.yaml"))
TWINS = checkpoint.TWINS
SIBLINGS = {"llava_mistral": "llava_15", "llava_vicuna": "llava_15", "qwen25_vl": "qwen2_vl"}
"""Captioners by the code of another one: what is dear and shown on that one is repeated on these by `make long`."""
GREEDY = Decoding(max_new_tokens=40, repetition_penalty=1.0, batch_size=8)
QUESTION = "Describe this medical image."


def one_per_family(names: Sequence[str]) -> list[Any]:
    """Names as parameters of a test, siblings marked long."""
    return [pytest.param(name, marks=pytest.mark.long) if name in SIBLINGS else name for name in names]


@cache
def composed(*overrides: str) -> config.Cell:
    """A cell of the run command, composed once: that takes longer than to build what it names."""
    return config.cells("run", overrides)[0]


def strategy(name: str, *overrides: str) -> Any:
    """The strategy of conf/lora/<name>.yaml, with other values where given (`lora.dora=true`)."""
    return config.build(composed(f"lora={name}", *overrides), "lora")


def make(name: str, weights: str = "embedded", **values: Any) -> HFCaptioner:
    """The captioner of conf/model/<name>.yaml, with other values where given."""
    whole = OmegaConf.create({"weights": {"name": weights}, "model": OmegaConf.load(CONF / f"{name}.yaml")})
    whole.model = OmegaConf.merge(whole.model, values)
    return instantiate(whole.model, _convert_="all")


def loaded(name: str, **values: Any) -> HFCaptioner:
    torch.set_num_threads(1)
    captioner = make(name, **values)
    captioner.load("cpu")
    return captioner


def published(name: str) -> dict[str, Any]:
    """The config.json of the real checkpoint, as it ships with the code."""
    values: dict[str, Any] = json.loads((checkpoint.PUBLISHED / name / "config.json").read_text())
    return values


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A bright blot on noise, in RGB."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 80, (height, width, 3), dtype=np.uint8)
    pixels[height // 3 : height // 2 + 1, width // 4 : width // 2 + 1] = 240
    return Image.fromarray(pixels)


def twin_copy(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a twin that `make(name)` reads instead of the original."""
    shutil.copytree(TWINS / name, folder / name)
    monkeypatch.setattr(checkpoint, "TWINS", folder)
    return folder / name


def supervised(captioner: HFCaptioner, batch: dict[str, torch.Tensor]) -> list[str]:
    """The text of the labels of each row, special tokens included."""
    return [
        captioner.tokenizer.decode([i for i in row if i != IGNORED], clean_up_tokenization_spaces=False)
        for row in batch["labels"].tolist()
    ]


def stop_text(captioner: HFCaptioner) -> str:
    return captioner.tokenizer.decode([captioner.stops[0]])


def examples(captions: Sequence[str | None]) -> list[Example]:
    """Pictures and questions of several sizes and lengths."""
    sizes = [(128, 128), (96, 200), (40, 30), (300, 128)]
    prompts = [QUESTION, "What is it?", f"{QUESTION} Take your time and name all that can be seen."]
    return [Example((picture(*sizes[i % 4], seed=i),), prompts[i % 3], caption) for i, caption in enumerate(captions)]
