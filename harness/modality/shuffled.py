"""The true labels of the split, dealt to other samples: as many of each, right by chance only."""

from __future__ import annotations

import random
from collections.abc import Sequence

from harness.contracts import UNKNOWN, NonNegative, Sample


class Shuffled:
    """A control: a captioner that gains from these labels gains from their words, not from knowing the picture."""

    def __init__(self, name: str, seed: NonNegative) -> None:
        self.name, self.seed = name, seed

    def labels(self, samples: Sequence[Sample]) -> list[str | None]:
        """A permutation of the known labels over the samples that have one, the same for the same seed and split."""
        known = [place for place, sample in enumerate(samples) if sample.modality != UNKNOWN]
        dealt = [samples[place].modality for place in known]
        random.Random(self.seed).shuffle(dealt)
        labels: list[str | None] = [None] * len(samples)
        for place, label in zip(known, dealt, strict=True):
            labels[place] = label
        return labels
