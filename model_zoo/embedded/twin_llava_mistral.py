"""LLaVA-1.6-Mistral's twin: 0.6 million parameters."""

from __future__ import annotations

from functools import partial

from model_zoo.embedded._llava import write_16
from model_zoo.embedded._pretrain import Recipe
from model_zoo.embedded._twin import Twin
from model_zoo.embedded._words import describe_or_list

TWIN = Twin(partial(write_16, text="mistral"), describe_or_list, Recipe(pictures=10000, steps=5000))
