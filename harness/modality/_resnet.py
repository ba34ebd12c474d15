"""The modality classifier as a folder: a transformers ResNet, how its pictures are prepared, and its temperature."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import ConvNextImageProcessor, ResNetForImageClassification

from harness.contracts import RequestError
from harness.encoders.checkpoint import hash_files, quiet

CONFIG, WEIGHTS, PIXELS = "config.json", "model.safetensors", "preprocessor_config.json"
FILES = (CONFIG, WEIGHTS, PIXELS)
TEMPERATURE = "calibration_temperature"
"""Key of config.json; 1 in a checkpoint that was not calibrated."""


@dataclass
class Network:
    """A ResNet with its picture processor (of ConvNext's kind, as ResNet's checkpoints have it)."""

    model: Any
    processor: Any

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels in the order of the logits."""
        names = self.model.config.id2label
        return tuple(str(names[place]) for place in range(len(names)))

    @property
    def temperature(self) -> float:
        """What logits are divided by, so that confidences are shares of right answers."""
        return float(getattr(self.model.config, TEMPERATURE, 1.0))

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """A picture as the network takes it [3, height, width]."""
        values: torch.Tensor = self.processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
        return values

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """[pictures, classes] on the CPU."""
        self.model.eval()
        with torch.inference_mode():
            values: torch.Tensor = self.model(pixels.to(self.model.device)).logits
        return values.float().cpu()

    def save(self, folder: Path, temperature: float) -> None:
        """Write the three files."""
        setattr(self.model.config, TEMPERATURE, temperature)
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def digest(folder: Path) -> str:
    """Hex sha256 over names and bytes of the three files."""
    return hash_files(folder, [folder / name for name in FILES])


def problem(folder: Path) -> str | None:
    """What is not as in a ResNet's checkpoint folder; None when all is well. Reads no weights."""
    lacking = [name for name in FILES if not (folder / name).is_file()]
    if lacking:
        return f"found no {lacking[0]}" if folder.is_dir() else "there is none"
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        return f"its {CONFIG} is no JSON ({error})"
    kind = found.get("model_type") if isinstance(found, dict) else None
    return None if kind == "resnet" else f"found the architecture {kind!r}"


def read(folder: Path, device: str) -> Network:
    """The network with every weight accounted for. Raises RequestError."""
    model = read_model(folder)
    with quiet():
        processor = ConvNextImageProcessor.from_pretrained(folder, local_files_only=True)
    return Network(model.to(device), processor)


def read_model(folder: Path, new_head: str = "", **options: Any) -> Any:
    """A ResNet of a folder. new_head: the beginning of the names of weights that may be missing or of another shape."""
    try:
        with quiet():  # of the warnings about a new head, which is wanted here
            model, info = ResNetForImageClassification.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **options,
            )
    except (SafetensorError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RequestError(f"{folder}: {WEIGHTS} cannot be read ({reason}); fit or get the checkpoint again") from error
    keys = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    wrong = sorted(key for key in keys if not new_head or not key.startswith(new_head))
    if wrong:
        raise RequestError(f"{folder}: weight {wrong[0]} is not as {CONFIG} says; fit or get the checkpoint again")
    return model
