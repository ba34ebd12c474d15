"""Phantom captions: are modality, region, finding and side of the reference right in the candidate?"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

from harness.contracts import Pair, Score
from harness.datasets.phantom.facts import facts
from harness.metrics._text import Texts, score_distinct

VERSION = 1  # raise it with any change of this file that changes a value
STATED = ("modality", "region", "finding")  # by every phantom caption; the side where it has a meaning
READER = "7652b46618d8"  # of the words that are read as facts; another word needs another mark (a test says so)
NOT_PHANTOM = "the reference is no phantom caption: it does not state modality, region and finding"


class Facts:
    """1 or 0 for each fact that the reference states, and for all of them together; for the phantom dataset only.

    A fact that the reference does not state has no value: a protocol that shows `side` restricts its whole table to the
    samples with a side. `all` is there for every phantom caption. What the candidate states beyond the reference costs
    nothing. A reference that is no phantom caption has no values; one of twenty real captions happens to read like one.
    """

    values = ("modality", "region", "finding", "side", "all")
    needs = frozenset({"reference"})
    higher_is_better = True

    def __init__(self, name: str) -> None:
        self.name = name

    def missing(self) -> str | None:
        """Nothing is ever missing."""
        return None

    def signature(self) -> str:
        """What a value depends on besides its texts: the words that the dataset reads as facts."""
        return f"{self.name}|v={VERSION}|reader={READER}"

    def load(self, device: str, features: MutableMapping[str, bytes]) -> None:
        """Nothing to load."""

    def score(self, pairs: Sequence[Pair], references: Sequence[str]) -> list[Score]:
        """One score per pair; `references` are not used."""
        return score_distinct(pairs, lambda texts: [_score(text) for text in texts])


def _score(texts: Texts) -> Score:
    reference, candidate = (facts(text) for text in texts)
    if not all(reference[name] for name in STATED):
        return Score({}, NOT_PHANTOM)
    right = {name: float(candidate[name] == fact) for name, fact in reference.items() if fact}
    return Score(right | {"all": min(right.values())})
