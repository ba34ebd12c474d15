"""How the modality classifier is trained: a short plain loop over a ResNet, from a checkpoint or from nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

from harness.contracts import RUNTIME, ImageError, NonNegative, Positive, RequestError, Sample
from harness.modality import _resnet

HEAD = "classifier."  # names of the weights that an ImageNet checkpoint has for other classes
MEAN, SPREAD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of ImageNet's pictures, what ResNet-50 was trained with
BICUBIC = 3  # Pillow's number


@dataclass(eq=False)
class ResNetClassifier:
    """A ResNet for image classification, all of it trained with AdamW and one cycle of the learning rate.

    Smith and Topin 2019 for the cycle. Pictures are mirrored at random: the modality does not depend on the side.
    """

    name: str
    hub: Annotated[str | None, RUNTIME]
    revision: Annotated[str | None, RUNTIME]
    channels: list[int] | None
    size: Annotated[int, Ge(32)]
    epochs: Positive
    batch_size: Annotated[int, Ge(2)]
    learning_rate: float
    weight_decay: float
    workers: Annotated[NonNegative, RUNTIME]
    network: _resnet.Network | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Check that there is one start."""
        if (self.hub is None) == (not self.channels):
            raise RequestError("classifier: expected either hub (a checkpoint) or channels (a new network), not both")

    def digest(self) -> str:
        """Hex sha256 of the checkpoint that the training starts from; "random" without one."""
        return "random" if self.hub is None else _resnet.digest(self._checkpoint(self.hub))

    def steps(self, count: int) -> int:
        """Updates that a fit on so many samples takes."""
        return self.epochs * -(-count // self.batch_size)

    def fit(
        self, samples: Sequence[Sample], classes: Sequence[str], seed: int, device: str, advance: Callable[[int], None]
    ) -> None:
        """Train on the samples' modalities. The same seed, samples and machine give the same weights."""
        torch.manual_seed(seed)
        self.network = self._start(classes)
        model = self.network.model.to(device)
        optimizer = torch.optim.AdamW(model.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        steps = self.steps(len(samples))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=max(steps, 4))
        places = {name: place for place, name in enumerate(classes)}
        truth = [places[sample.modality] for sample in samples]
        draws = torch.Generator().manual_seed(seed)
        model.train()
        for _ in range(self.epochs):
            for pixels, target in self._batches(samples, truth, draws):
                mirrored = torch.rand(len(pixels), generator=draws) < 0.5
                pixels[mirrored] = pixels[mirrored].flip(-1)
                with torch.autocast("cuda", torch.bfloat16, enabled=model.device.type == "cuda"):
                    logits = model(pixels.to(model.device)).logits
                loss = functional.cross_entropy(logits.float(), target.to(model.device))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                advance(1)

    def logits(self, samples: Sequence[Sample]) -> torch.Tensor:
        """Of the trained network [samples, classes], on the CPU. Raises ImageError."""
        network = self._trained()
        blank = [0] * len(samples)
        return torch.cat([network.logits(pixels) for pixels, _ in self._batches(samples, blank)])

    def save(self, folder: Path, temperature: float) -> None:
        """Write what `Predicted` reads."""
        self._trained().save(folder, temperature)

    def _trained(self) -> _resnet.Network:
        assert self.network is not None, "fit comes first"
        return self.network

    def _start(self, classes: Sequence[str]) -> _resnet.Network:
        """The first weights, with a new head for these classes."""
        names = dict(enumerate(classes))
        labels = {"id2label": names, "label2id": {name: place for place, name in names.items()}}
        if self.hub is None:
            channels = self.channels or []
            sizes = {"embedding_size": channels[0], "hidden_sizes": channels, "depths": [1] * len(channels)}
            model = ResNetForImageClassification(ResNetConfig(**sizes, layer_type="basic", **labels))
        else:
            model = _resnet.read_model(self._checkpoint(self.hub), HEAD, num_labels=len(classes), **labels)
        processor = ConvNextImageProcessor(
            size={"shortest_edge": self.size}, crop_pct=0.875, resample=BICUBIC, image_mean=MEAN, image_std=SPREAD
        )
        return _resnet.Network(model, processor)

    def _checkpoint(self, hub: str) -> Path:
        """The folder of a hub id, downloaded if need be, or a local one. Raises RequestError."""
        folder = Path(hub).expanduser()
        if not folder.is_dir():
            try:
                folder = Path(snapshot_download(hub, revision=self.revision, allow_patterns=list(_resnet.FILES)))
            except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, ConnectionError) as error:
                raise RequestError(
                    f"classifier.hub={hub}: cannot be had ({str(error).strip().splitlines()[0]}); download it "
                    "once where there is network, give a local folder, or train a small one with weights=embedded"
                ) from error
        wrong = _resnet.problem(folder)
        if wrong:
            raise RequestError(f"classifier.hub={hub}: expected the checkpoint of a ResNet, {wrong}; give another")
        return folder

    def _batches(
        self, samples: Sequence[Sample], truth: Sequence[int], draws: torch.Generator | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Pixels [n, 3, size, size] and places of the classes [n]; in random order where `draws` are given."""
        pictures = _Pictures(samples, truth, self._trained())
        yield from DataLoader(
            pictures, self.batch_size, shuffle=draws is not None, generator=draws, num_workers=self.workers
        )


class _Pictures(Dataset[tuple[torch.Tensor, int]]):
    """The first picture of each sample, decoded when it is asked for."""

    def __init__(self, samples: Sequence[Sample], truth: Sequence[int], network: _resnet.Network) -> None:
        self.samples, self.truth = samples, truth
        self.network = _resnet.Network(None, network.processor)  # workers need no copy of the weights

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        sample = self.samples[index]
        if not sample.images:
            raise ImageError(f"sample {sample.id}: expected a picture, found none")
        try:
            return self.network.pixels(sample.images[0].load()), self.truth[index]
        except ImageError as error:
            raise ImageError(
                f"sample {sample.id}: {error}; `capbench data check` finds all such pictures, and with "
                "dataset.check=decoded they go to the ledger"
            ) from error
