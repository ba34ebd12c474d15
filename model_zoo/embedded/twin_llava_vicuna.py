"""LLaVA-1.6-Vicuna's twin: 0.6 million parameters. Its tokenizer knows the system text."""

from __future__ import annotations

from functools import partial

from model_zoo.embedded._llava import write_16
from model_zoo.embedded._pretrain import Recipe
from model_zoo.embedded._twin import Twin
from model_zoo.embedded._words import describe_or_list

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
WORDS = (f" {SYSTEM}", " USER:", " ASSISTANT:")
WRITE = partial(write_16, text="llama", vocabulary=700, words=WORDS)
TWIN = Twin(WRITE, describe_or_list, Recipe(pictures=10000, steps=5000))
