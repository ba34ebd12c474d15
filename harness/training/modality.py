"""Data and identity of a fit of the modality classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.contracts import UNKNOWN, Dataset, ModalityClassifier, RequestError, Sample, Split
from harness.store import SCHEMA, difference, file_digest, read_manifest


@dataclass(frozen=True)
class Part:
    """The samples of a split whose modality is known; `left_out` counts the others."""

    split: Split
    samples: tuple[Sample, ...]

    @property
    def left_out(self) -> int:
        """Samples without a known modality."""
        return len(self.split.samples) - len(self.samples)

    @property
    def modalities(self) -> list[str]:
        """The truth, sample by sample."""
        return [sample.modality for sample in self.samples]


@dataclass(frozen=True)
class Data:
    """What a fit works on; `valid` is None, with the reason in `uncalibrated`, where there is no such split."""

    train: Part
    valid: Part | None
    test: Part
    uncalibrated: str

    @property
    def parts(self) -> dict[str, Part]:
        """The splits there are."""
        return {"train": self.train, **({"valid": self.valid} if self.valid else {}), "test": self.test}

    @property
    def classes(self) -> list[str]:
        """What can be told apart, by name."""
        return sorted(set(self.train.modalities))


def load(dataset: Dataset) -> Data:
    """Train, test and, where there is one, valid. Raises RequestError when there is nothing to tell apart."""
    train, test = _part(dataset.load("train")), _part(dataset.load("test"))
    valid, reason = None, ""
    try:
        valid = _part(dataset.load("valid"))
    except RequestError as error:  # a dataset without this split says so: the temperature stays 1, and that is reported
        reason = str(error)
    if valid is not None and not valid.samples:
        valid, reason = None, "no sample of split 'valid' has a known modality"
    kinds = sorted(set(train.modalities))
    if len(kinds) < 2 or not test.samples:
        raise RequestError(
            f"dataset={dataset.name}: expected known modalities, two or more in 'train' and one in 'test', got "
            f"{', '.join(kinds) or 'none'} in {len(train.samples)} samples, and {len(test.samples)} test samples"
        )
    return Data(train, valid, test, reason)


def _part(split: Split) -> Part:
    return Part(split, tuple(sample for sample in split.samples if sample.modality != UNKNOWN))


def identity_of(
    values: Mapping[str, Any], classifier: ModalityClassifier, data: Data, seed: int, bins: int
) -> dict[str, Any]:
    """All that can change the weights, the temperature or what is measured."""
    return {
        "schema": SCHEMA,
        "classifier": values,
        "start": classifier.digest(),
        "data": {name: part.split.fingerprint for name, part in data.parts.items()},
        "seed": seed,
        "bins": bins,
    }


def done(out: Path, identity: Mapping[str, Any]) -> bool:
    """Whether this very fit lies in `out`. Raises RequestError when another one does, or its files were changed."""
    manifest = read_manifest(out)
    if manifest is None:
        return False
    lines = difference(manifest["identity"], identity)
    if lines:
        raise RequestError(f"out={out}: holds another fit ({'; '.join(lines[:3])}); choose another out=FOLDER")
    for name, known in manifest["files"].items():
        if not (out / name).is_file() or file_digest(out / name) != known:
            raise RequestError(f"out={out}: {name} is not what the fit wrote; delete the folder to fit anew")
    return True
