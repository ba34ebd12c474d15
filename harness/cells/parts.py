"""The parts of a cell: its plug-ins, built from its configuration, and its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Interval

from harness import config
from harness.batches.features import Mode
from harness.contracts import (
    Captioner,
    Control,
    Dataset,
    Decoding,
    ModalitySource,
    Positive,
    PromptStyle,
    Split,
    Strategy,
    Training,
)
from harness.machine.devices import pick_device
from harness.machine.terminal import errors
from harness.store import digest

GROUPS = ("dataset", "model", "lora", "prompt", "modality", "train", "generate", "control")


@dataclass(frozen=True)
class Settings:
    """The root-level values of conf/run.yaml."""

    seed: Annotated[int, Interval(ge=0, le=2**32 - 1)]
    split: str
    results: str
    device: str
    threads: Positive | None
    metrics: list[str]
    blank: bool = False  # configurations of earlier versions do not have it
    labels_in_training: bool = False
    features: Mode = "auto"
    features_gb: Annotated[float, Ge(0)] = 20.0


class Once:
    """A dataset whose splits are read once per process, however many cells use it."""

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.name = dataset, dataset.name
        self.splits: dict[str, Split] = {}

    def load(self, split: str) -> Split:
        """The split, read at the first call."""
        if split not in self.splits:
            self.splits[split] = self.dataset.load(split)
            _report_rejected(self.name, self.splits[split])
        return self.splits[split]


@dataclass(frozen=True)
class Parts:
    """The built plug-ins and options of one cell. `identities` holds, per group, the values that enter the hashes."""

    settings: Settings
    dataset: Dataset
    captioner: Captioner
    strategy: Strategy
    prompt: PromptStyle
    modality: ModalitySource
    training: Training
    decoding: Decoding
    control: Control
    identities: Mapping[str, Mapping[str, Any]]
    weights: str
    device: str
    results: Path
    config: Mapping[str, Any]
    config_yaml: str

    @property
    def taught_labels(self) -> ModalitySource | None:
        """Whose labels the training questions carry. None, as usual: a label joins at inference, over any adapter."""
        return self.modality if self.settings.labels_in_training else None


def build_parts(one: config.Cell, datasets: dict[str, Once]) -> Parts:
    """Build the plug-ins of a cell. Raises RequestError."""
    settings: Settings = config.settings(one, Settings)
    built = {group: config.build(one, group) for group in GROUPS}
    return Parts(
        settings=settings,
        dataset=datasets.setdefault(digest(one.config["dataset"]), Once(built["dataset"])),
        captioner=built["model"],
        strategy=built["lora"],
        prompt=built["prompt"],
        modality=built["modality"],
        training=built["train"],
        decoding=built["generate"],
        control=built["control"],
        identities={group: config.identity_values(one.config[group]) for group in GROUPS},
        weights=str(one.config["weights"]["name"]),
        device=pick_device(settings.device, settings.threads),
        results=Path(settings.results),
        config=one.config,
        config_yaml=config.to_yaml(one.config),
    )


def _report_rejected(name: str, split: Split) -> None:
    for rejected in split.rejected[:5]:
        errors.print(f"{name} {split.name}: {rejected.id} rejected: {rejected.reason}")
    if len(split.rejected) > 5:
        errors.print(f"{name} {split.name}: {len(split.rejected) - 5} more rejected rows, all in the manifest")
