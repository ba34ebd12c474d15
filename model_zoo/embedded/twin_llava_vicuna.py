"""LLaVA-1.6-Vicuna's twin: 0.6 million parameters."""

from __future__ import annotations

from pathlib import Path

from model_zoo._hf import HFCaptioner
from model_zoo.embedded._llava import write_16
from model_zoo.embedded._pretrain import Recipe
from model_zoo.embedded._twin import Twin, save_whole
from model_zoo.embedded._words import describe_or_list
from model_zoo.llava import LlavaNext

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
TEMPLATE = f"{SYSTEM} USER: {{images}}{{question}} ASSISTANT:"


def write(folder: Path) -> None:
    """36 image tokens and a Llama, whose tokenizer knows the system text."""
    write_16(folder, "llama", vocabulary=700, words=(f" {SYSTEM}", " USER:", " ASSISTANT:"))


def open_folder(folder: Path) -> HFCaptioner:
    """As the yaml does, but from any folder."""
    return LlavaNext("llava_vicuna", "LVLM", "hub", str(folder), None, "float32", "sdpa", TEMPLATE)


TWIN = Twin(write, open_folder, save_whole, describe_or_list, Recipe(pictures=10000, steps=5000, batch=16, rate=2e-3))
