"""The dataset's own modality label: the upper bound of what a classifier could give."""

from __future__ import annotations

from collections.abc import Sequence

from harness.contracts import UNKNOWN, Sample


class Oracle:
    """The true label of each sample."""

    def __init__(self, name: str) -> None:
        self.name = name

    def labels(self, samples: Sequence[Sample]) -> list[str | None]:
        """The sample's modality, None where the dataset does not know it."""
        return [None if sample.modality == UNKNOWN else sample.modality for sample in samples]
