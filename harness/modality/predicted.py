"""The modality that a classifier sees in the picture: the label that is to be had without a radiologist."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge, Lt

from harness.contracts import RUNTIME, ImageError, ImageSource, Positive, RequestError, Sample
from harness.machine.devices import pick_device
from harness.modality import _resnet

EMBEDDED = Path(__file__).parent / "embedded"
HELP = "train one with `capbench modality fit dataset=NAME out=FOLDER` and give modality.checkpoint=FOLDER"


@dataclass(eq=False)
class Predicted:
    """What a ResNet says of each sample's first picture, as `capbench modality fit` has trained it.

    The checkpoint's content is part of what a run is known by (`digest`), the place where it lies is not.
    """

    name: str
    checkpoint: Annotated[str | None, RUNTIME]
    least: Annotated[float, Ge(0), Lt(1)]
    batch_size: Annotated[Positive, RUNTIME]
    device: Annotated[str, RUNTIME]
    _known: dict[str, str | None] = field(default_factory=dict, init=False)

    def digest(self) -> str:
        """Hex sha256 of the checkpoint's files. Raises RequestError when there is none."""
        return _resnet.digest(self._folder())

    def labels(self, samples: Sequence[Sample]) -> list[str | None]:
        """One label per sample; None without a picture that can be read, and below the least confidence.

        A picture is looked at once, however often and in whatever split it comes.
        """
        keys = [_key(sample) for sample in samples]
        new = {
            key: sample.images[0]
            for key, sample in zip(keys, samples, strict=True)
            if key is not None and key not in self._known
        }
        if new:
            self._predict(new)
        return [None if key is None else self._known[key] for key in keys]

    def _predict(self, images: dict[str, ImageSource]) -> None:
        network = _resnet.read(self._folder(), pick_device(self.device, None))
        items = list(images.items())
        for start in range(0, len(items), self.batch_size):
            pixels = {}
            for key, image in items[start : start + self.batch_size]:
                try:
                    pixels[key] = network.pixels(image.load())
                except ImageError:  # the run lists the sample as failed, with the reason
                    self._known[key] = None
            if pixels:
                sure, places = _confidences(network, torch.stack([*pixels.values()]))
                for key, confidence, place in zip(pixels, sure, places, strict=True):
                    self._known[key] = network.classes[place] if confidence >= self.least else None
        del network
        gc.collect()  # a GPU has the captioner to hold next

    def _folder(self) -> Path:
        if self.checkpoint is None:
            raise RequestError(
                f"modality.checkpoint: no value; {HELP}; modality.checkpoint=embedded knows drawn pictures only"
            )
        folder = EMBEDDED if self.checkpoint == "embedded" else Path(self.checkpoint).expanduser()
        wrong = _resnet.problem(folder)
        if wrong:
            raise RequestError(
                f"modality.checkpoint={self.checkpoint}: expected a folder with a ResNet classifier, {wrong}; {HELP}"
            )
        return folder


def _key(sample: Sample) -> str | None:
    try:
        return sample.images[0].digest() if sample.images else None
    except ImageError:
        return None


def _confidences(network: _resnet.Network, pixels: torch.Tensor) -> tuple[list[float], list[int]]:
    """The calibrated share of the most likely class, and the class."""
    shares = torch.softmax(network.logits(pixels) / network.temperature, dim=1)
    sure, places = shares.max(dim=1)
    return sure.tolist(), places.tolist()
