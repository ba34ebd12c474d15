"""A label that is not the sample's: what a captioner does when it is told something false."""

from __future__ import annotations

import random
from collections.abc import Sequence

from harness.contracts import UNKNOWN, NonNegative, RequestError, Sample


class Wrong:
    """A control: one of the other labels of the split, all equally likely. A captioner that does not mind ignores them.

    Raises RequestError on a split with a single modality: there is no other label to give.
    """

    def __init__(self, name: str, seed: NonNegative) -> None:
        self.name, self.seed = name, seed

    def labels(self, samples: Sequence[Sample]) -> list[str | None]:
        """Never the sample's own label; drawn by seed and id, so that another sample changes no label."""
        kinds = sorted({sample.modality for sample in samples} - {UNKNOWN})
        if len(kinds) == 1:
            raise RequestError(
                f"modality={self.name}: every sample is {kinds[0]}, there is no other label to give; use another source"
            )
        return [None if sample.modality == UNKNOWN else self._other(sample, kinds) for sample in samples]

    def _other(self, sample: Sample, kinds: Sequence[str]) -> str:
        others = [kind for kind in kinds if kind != sample.modality]
        return random.Random(f"{self.seed} {sample.id}").choice(others)
