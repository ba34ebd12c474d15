"""Captioners, what they see and say, and the controls that speak in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from harness.contracts.data import Sample
from harness.contracts.options import Decoding

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import nn


IGNORED = -100  # the label of a position that is not learnt, as torch's cross-entropy has it
Region = Literal["vision", "connector", "language", "head", "embeddings"]


@dataclass(frozen=True)
class Site:
    """A part of a model: a pattern for `re.fullmatch` over module names, and the region it is counted in."""

    pattern: str
    region: Region


@dataclass(frozen=True)
class Stage:
    """Progressive fine-tuning: from this share of the steps on (0 to 1), the modules of these patterns train."""

    start: float
    modules: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """A question and its pictures as a captioner keeps them: prompt ids, and tensors by name."""

    ids: Sequence[int]
    tensors: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Example:
    """What a captioner sees: decoded pictures, the question and, in training, the answer.

    seen: what stands in the place of pictures and question when a `TowerCached` captioner has seen them before.
    """

    images: tuple[Image.Image, ...]
    prompt: str
    caption: str | None = None
    seen: Seen | None = None


@dataclass(frozen=True)
class Generated:
    """One caption; `truncated` when it reached max_new_tokens before the stop token."""

    caption: str
    tokens: int
    truncated: bool


@dataclass(frozen=True)
class Answer:
    """The supervised token ids of one caption; `cut` when the caption was longer than the limit allowed."""

    ids: tuple[int, ...]
    cut: bool


class Captioner(Protocol):
    """The wrapper around a model. `load` fills `model`; everything before it is cheap.

    `sites` maps site names to modules for the LoRA strategies; `schedule` is the unfreezing plan of `full`.
    An empty one means that the strategies which need it refuse the captioner.
    """

    name: str
    kind: Literal["LVLM", "SVLM", "baseline"]
    sites: Mapping[str, Site]
    schedule: tuple[Stage, ...]
    prompted: bool
    model: nn.Module

    def digest(self) -> str:
        """Hex sha256 of the checkpoint's files. Raises RequestError when the checkpoint cannot be found."""

    def found(self) -> tuple[str, str]:
        """For `capbench list`: what is found of the embedded twin and of the published checkpoint, nothing is read."""

    def skeleton(self) -> nn.Module:
        """The architecture on the meta device, without weights."""

    def load(self, device: str) -> None:
        """Read the checkpoint into `model`."""

    def region(self, module: str) -> Region:
        """The region a module name belongs to."""

    def answer(self, caption: str, limit: int) -> Answer:
        """Token ids of caption and stop token. At most `limit` ids: a longer caption is cut and gets no stop token."""

    def collate(self, examples: Sequence[Example], limit: int) -> dict[str, torch.Tensor]:
        """A right-padded training batch with `labels`: the answer's ids, IGNORED elsewhere."""

    def generate(self, examples: Sequence[Example], decoding: Decoding) -> list[Generated]:
        """One caption per example, greedy, independent of the batch it is in."""


Engine = Callable[[Sequence[Example], "Decoding"], list[Generated]]
"""One caption per example, greedy: `Captioner.generate`, or another engine's."""


@runtime_checkable
class TowerCached(Protocol):
    """A captioner whose vision tower need not see a picture twice, as long as no strategy touches the tower.

    What is kept is what the tower gives, the input of the connector: connector and language model may be trained.
    tower: the name of the module in which the tower lies.
    """

    tower: str

    def preprocess(self, example: Example) -> Seen:
        """Prompt ids and pixels of one example, as the processor makes them. Works before `load`."""

    def encode_images(self, processed: Seen) -> Seen:
        """The same with the tower's output in the place of the pixels, on the CPU."""

    def using_features(self, batch: dict[str, torch.Tensor]) -> AbstractContextManager[None]:
        """Makes a batch of examples that have been seen ready for the model, in place; within it the tower is left out.

        A batch of pictures is left as it is.
        """


@runtime_checkable
class Exportable(Protocol):
    """A captioner whose language model another engine can run: it gives embedded prompts and takes token ids back."""

    @property
    def stops(self) -> tuple[int, ...]:
        """Token ids that end a caption."""

    def unexportable(self) -> str | None:
        """Why its language model cannot leave it as it is now; None when it can."""

    def export(self, folder: Path) -> None:
        """Write the language model, merged, as a transformers checkpoint of its own."""

    def embed(self, example: Example) -> torch.Tensor:
        """Pictures and question as the language model gets them: (places, width)."""

    def give_up_language(self) -> None:
        """Free the memory of the language layers; `embed` works on."""

    def caption(self, ids: Sequence[int]) -> Generated:
        """What the generated token ids say."""


@runtime_checkable
class Measured(Protocol):
    """A captioner whose pictures take more or fewer places, so that batches of rows alike waste least."""

    def places(self, size: tuple[int, int]) -> int:
        """About how many places a picture of (width, height) takes in a prompt; reads settings, no weights."""


@dataclass(frozen=True)
class ControlCaption:
    """What a control says of one sample: a caption, or None and the reason. `facts` join the sample's journal row."""

    caption: str | None
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


class Control(Protocol):
    """Captions without a captioner: what a score is worth is what a captioner gains over these.

    `replaces_captioner` is false of the one that leaves the captioner in its place. Constructors are cheap.
    """

    name: str
    replaces_captioner: bool

    def digest(self) -> str:
        """Hex sha256 of the checkpoint it looks with, "" without one. Raises RequestError when it cannot be found."""

    def learn(self, train: Sequence[Sample], device: str, features: MutableMapping[str, bytes]) -> Mapping[str, Any]:
        """Take in the training samples; what of that belongs into the manifest. `features`: as for metrics."""

    def caption(self, samples: Sequence[Sample]) -> list[ControlCaption]:
        """One answer per sample, independent of the others."""
