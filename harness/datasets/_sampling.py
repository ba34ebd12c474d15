"""Samples of a split: a small part stands for the whole, the same each time, and is a part of every larger one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.contracts import Sample

Strata = Literal["modality", "none"]


@dataclass(frozen=True)
class Sampling:
    """`limit` samples of a split (None: all), by `seed`; with `stratify`, in the split's proportions of modalities."""

    limit: int | None
    stratify: Strata
    seed: int

    def pick(self, samples: Sequence[Sample]) -> list[Sample]:
        """The chosen samples in their own order. Those of a limit are among those of every larger limit."""
        if self.limit is None or self.limit >= len(samples):
            return list(samples)
        strata: dict[str, list[int]] = {}
        for index, sample in enumerate(samples):
            strata.setdefault(sample.modality if self.stratify == "modality" else "", []).append(index)
        counts = shares({name: len(members) for name, members in strata.items()}, self.limit)
        chosen: list[int] = []
        for name, members in strata.items():
            members.sort(key=lambda index: draw(self.seed, samples[index].id))
            chosen += members[: counts[name]]
        return [samples[index] for index in sorted(chosen)]


def draw(seed: int, identity: str) -> bytes:
    """A sample's place in the order of its stratum: by its id alone, whatever else is in the table."""
    return hashlib.blake2b(f"{seed}\0{identity}".encode(), digest_size=16).digest()


def shares(sizes: Mapping[str, int], limit: int) -> dict[str, int]:
    """Sizes of the strata in a sample: exact shares of `limit`, rounded up or down, and never fewer for a larger limit.

    The quota method of Balinski and Young (Amer. Math. Monthly 82, 1975): largest remainders alone are not nested.
    """
    total = sum(sizes.values())
    taken = dict.fromkeys(sorted(sizes), 0)
    for number in range(1, limit + 1):
        below = [name for name in taken if taken[name] * total < sizes[name] * number]
        taken[max(below, key=lambda name: sizes[name] / (taken[name] + 1))] += 1
    return taken
