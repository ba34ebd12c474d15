"""Qwen2.5-VL's twin: half a million parameters."""

from __future__ import annotations

from functools import partial

from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from model_zoo.base.captioner import HFCaptioner
from model_zoo.base.checkpoint import TWINS
from model_zoo.embedded._pretrain import Recipe
from model_zoo.embedded._qwen import MERGE, PATCHES, write
from model_zoo.embedded._twin import TEXT, Twin, open_twin
from model_zoo.embedded._words import describe_and_trust

VISION = {
    "window_size": 2 * MERGE * PATCHES["patch_size"],
    "fullatt_block_indexes": [0, 2],  # and a block between them that sees windows of 2x2 image tokens
    "hidden_size": 64,
    "intermediate_size": 96,
    "out_hidden_size": TEXT["hidden_size"],
    "tokens_per_second": 2,
}
WRITE = partial(write, config_class=Qwen2_5_VLConfig, model_class=Qwen2_5_VLForConditionalGeneration, **VISION)


def begin(captioner: HFCaptioner) -> None:
    """Start from Qwen2-VL's twin wherever name and shape agree: it has the same words, and few steps are enough."""
    earlier = open_twin("qwen2_vl", TWINS / "qwen2_vl")
    earlier.load("cpu")
    state = captioner.model.state_dict()
    known = earlier.model.state_dict().items()
    state.update({name: tensor for name, tensor in known if name in state and tensor.shape == state[name].shape})
    captioner.model.load_state_dict(state)


RECIPE = Recipe(pictures=4000, steps=1300, rate=1.5e-3, seed=1)
TWIN = Twin(WRITE, describe_and_trust, RECIPE, begin)
