"""Checkpoint folders of a published size with random weights: for what depends on size alone, memory and speed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from harness.contracts import RequestError
from model_zoo.base.captioner import HFCaptioner
from model_zoo.base.checkpoint import PUBLISHED, TWINS, read_json
from model_zoo.embedded._twin import open_twin

SHARD = 2 * 2**30  # bytes that are in memory at once
SPREAD = 0.02  # standard deviation of a weight, as the families initialise theirs
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
    """Write a checkpoint folder that is read like a real one."""
    write_config(name, folder, layers)
    write_weights(open_twin(name, folder), folder, device)


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


def write_weights(captioner: HFCaptioner, folder: Path, device: str, seed: int = 0) -> None:
    """bfloat16 weights for the captioner's skeleton as shards and an index; drawn on `device`, one shard in memory."""
    torch.manual_seed(seed)
    places: dict[str, str] = {}
    for number, names in enumerate(_shards(captioner)):
        file = f"model-{number:05}.safetensors"
        tensors = {name: _draw(name, shape, device).cpu() for name, shape in names.items()}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _shards(captioner: HFCaptioner) -> Iterator[dict[str, torch.Size]]:
    """Parameters, tied ones once, in portions."""
    shard: dict[str, torch.Size] = {}
    size = 0
    for name, parameter in captioner.skeleton().named_parameters():
        if shard and size + 2 * parameter.numel() > SHARD:
            yield shard
            shard, size = {}, 0
        shard[name] = parameter.shape
        size += 2 * parameter.numel()
    yield shard


def _draw(name: str, shape: torch.Size, device: str) -> torch.Tensor:
    """Norms pass everything on, biases add nothing; the rest is noise."""
    weight = torch.empty(shape, dtype=torch.bfloat16, device=device)
    if name.endswith("bias"):
        return weight.zero_()
    return weight.fill_(1) if len(shape) == 1 else weight.normal_(std=SPREAD)
