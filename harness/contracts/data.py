"""Samples, datasets, prompt styles and modality sources: what a captioner is asked about, and how."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, runtime_checkable

from harness.contracts.common import UNKNOWN

if TYPE_CHECKING:
    import torch
    from PIL import Image


class ImageSource(Protocol):
    """Where a picture comes from; nothing is read before `load`."""

    def load(self) -> Image.Image:
        """The picture as 8-bit RGB. Raises ImageError when it cannot be decoded."""

    def digest(self) -> str:
        """Hex sha256 of the bytes the picture is made from. Raises ImageError when they cannot be read."""


@dataclass(frozen=True)
class Sample:
    """One row of a dataset: its picture(s) and the reference text.

    `factors`: what else is known of it (facts of a drawn picture; licence, attribution, raw_caption of a real one).
    """

    id: str
    images: tuple[ImageSource, ...]
    caption: str
    split: str
    modality: str = UNKNOWN
    concepts: tuple[str, ...] = ()
    factors: Mapping[str, str] = field(default_factory=dict)
    task: str = "caption"


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be used, and why. Counted and written down, never dropped in silence."""

    id: str
    reason: str


@dataclass(frozen=True)
class Split:
    """The usable samples of one split, in a fixed order, and the ledger of the others."""

    name: str
    samples: tuple[Sample, ...]
    rejected: tuple[Rejected, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """Hex sha256 over ids, captions, modalities and picture bytes: what a caption or a fit can depend on."""
        return fingerprint((sample, [image.digest() for image in sample.images]) for sample in self.samples)


def fingerprint(rows: Iterable[tuple[Sample, Sequence[str]]]) -> str:
    """Hex sha256 over samples and the digests of their pictures."""
    total = hashlib.sha256()
    for sample, digests in rows:
        for text in (sample.id, sample.caption, sample.modality, *sample.concepts, *digests, ""):
            raw = text.encode()
            total.update(len(raw).to_bytes(8, "little") + raw)
    return total.hexdigest()


class Dataset(Protocol):
    """A source of samples. Constructors are cheap; `load` reads."""

    name: str

    def load(self, split: str) -> Split:
        """Samples of "train", "valid" or "test", in the same order each time. Raises RequestError on a wrong file."""


@runtime_checkable
class Stored(Protocol):
    """An image source that can give the encoded bytes: `capbench data check` then tells format and colour mode."""

    def open(self) -> BinaryIO:
        """The picture as stored, from its first byte. Raises ImageError when it cannot be read."""


class ModalitySource(Protocol):
    """Where the modality label of the prompt comes from (the data, a classifier, nowhere)."""

    name: str

    def labels(self, samples: Sequence[Sample]) -> list[str | None]:
        """One label per sample, None where there is none to give."""


@runtime_checkable
class Checkpointed(Protocol):
    """A plug-in that reads a checkpoint: its content, not where it lies, is part of what a run is known by."""

    def digest(self) -> str:
        """Hex sha256 of the files that are read. Raises RequestError when there are none."""


class ModalityClassifier(Checkpointed, Protocol):
    """What `capbench modality fit` trains for a modality source to read. Its digest is that of the first weights."""

    name: str

    def steps(self, count: int) -> int:
        """Updates that a fit on so many samples takes."""

    def fit(
        self, samples: Sequence[Sample], classes: Sequence[str], seed: int, device: str, advance: Callable[[int], None]
    ) -> None:
        """Train to tell the classes apart; `advance` is called with each update. Raises ImageError."""

    def logits(self, samples: Sequence[Sample]) -> torch.Tensor:
        """Of the trained classifier [samples, classes], on the CPU. Raises ImageError."""

    def save(self, folder: Path, temperature: float) -> None:
        """Write a folder that the modality source reads; its confidences are those of logits / temperature."""


class PromptStyle(Protocol):
    """What a captioner is asked. How a model spells it (chat template) is the captioner's business."""

    name: str

    def text(self, sample: Sample, modality: str | None) -> str:
        """The question for one sample."""


@dataclass(frozen=True)
class Query:
    """A sample with its rendered question: what fit and generate work on.

    `label`: the modality that the question names.
    """

    sample: Sample
    prompt: str
    label: str | None = None
