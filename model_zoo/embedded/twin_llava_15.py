"""LLaVA-1.5's twin: 0.6 million parameters."""

from __future__ import annotations

from model_zoo.embedded._llava import write_15
from model_zoo.embedded._pretrain import Recipe
from model_zoo.embedded._twin import Twin
from model_zoo.embedded._words import describe_or_list

TWIN = Twin(write_15, describe_or_list, Recipe(pictures=10000, steps=6000))
