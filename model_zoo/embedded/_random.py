"""Checkpoint folders of a published size with random weights: for what depends on size alone, memory and speed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from harness.contracts import RequestError
from harness.encoders.checkpoint import read_json
from model_zoo.base.checkpoint import PUBLISHED, TWINS
from model_zoo.embedded._twin import open_twin

SHARD = 2 * 2**30  # bytes of a file
PIXELS: dict[str, dict[str, Any]] = {
    "smolvlm": {
        "size": {"longest_edge": 2048},
        "max_image_size": {"longest_edge": 512},
        "do_image_splitting": True,
    },
    "qwen2_vl": {"patch_size": 14},
    "llava_15": {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}},
}
"""What the published preprocessor_config.json says otherwise than the twin's."""


def prepare(name: str, folder: Path, device: str, layers: int | None = None) -> None:
    """Write a checkpoint folder: bfloat16 weights as transformers initialises them, drawn on `device`."""
    write_config(name, folder, layers)
    captioner: Any = open_twin(name, folder)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(captioner.config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size=SHARD)


def write_config(name: str, folder: Path, layers: int | None = None) -> None:
    """The twin's words, with the published sizes. `layers` cuts the depth of tower and language model, for tests."""
    if name not in PIXELS:
        raise RequestError(f"{name}: expected one of {', '.join(PIXELS)}, whose picture sizes are known here")
    shutil.copytree(TWINS / name, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    twin, config = read_json(TWINS / name / "config.json"), read_json(PUBLISHED / name / "config.json")
    # Sizes stay, the vocabulary's too: the twin's tokenizer uses the first ids of it.
    for words in (twin.get("text_config", {}), twin):
        config |= _token_ids(words, config)
    if "text_config" in config:
        config["text_config"] |= _token_ids(twin["text_config"], config["text_config"])
    if layers is not None:
        config.get("text_config", config)["num_hidden_layers"] = layers
        vision = config["vision_config"]
        vision["depth" if "depth" in vision else "num_hidden_layers"] = layers
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    pixels = folder / "preprocessor_config.json"
    pixels.write_text(json.dumps(read_json(pixels) | PIXELS[name], indent=1))


def _token_ids(twin: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    return {key: twin[key] for key in twin if key in config and key.endswith(("_token_id", "_token_index"))}
