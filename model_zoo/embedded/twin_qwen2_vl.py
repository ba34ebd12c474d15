"""Qwen2-VL's twin: half a million parameters."""

from __future__ import annotations

from functools import partial

from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from model_zoo.embedded._pretrain import Recipe
from model_zoo.embedded._qwen import write
from model_zoo.embedded._twin import TEXT, Twin
from model_zoo.embedded._words import describe_or_list

VISION = {"embed_dim": 64, "hidden_size": TEXT["hidden_size"], "mlp_ratio": 2}
WRITE = partial(write, config_class=Qwen2VLConfig, model_class=Qwen2VLForConditionalGeneration, **VISION)
TWIN = Twin(WRITE, describe_or_list, Recipe(pictures=6000, steps=3500))
