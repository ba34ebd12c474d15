"""Facts of phantom captions: modality, region, finding and side of the reference, right in the candidate or not."""

from __future__ import annotations

from harness.contracts import Score
from harness.datasets.phantom.facts import facts
from harness.metrics._text import TextMetric

VERSION = 1  # raise it with any change of this file that changes a value
STATED = ("modality", "region", "finding")  # by every phantom caption; the side where it has a meaning
READER = "7652b46618d8"  # of the words that are read as facts; another word needs another mark (a test says so)
NOT_PHANTOM = "the reference is no phantom caption: it does not state modality, region and finding"


class Facts(TextMetric):
    """1 or 0 for each fact that the reference states, and for all of them together; for the phantom dataset only.

    A fact that the reference does not state has no value: a protocol that shows `side` restricts its whole table to the
    samples with a side. `all` is there for every phantom caption. What the candidate states beyond the reference costs
    nothing. A reference that is no phantom caption has no values; one of twenty real captions happens to read like one.
    """

    values = ("modality", "region", "finding", "side", "all")

    def signature(self) -> str:
        """Name, version and the words that the dataset reads as facts: what a value depends on besides its texts."""
        return f"{self.name}|v={VERSION}|reader={READER}"

    def _score(self, reference: str, candidate: str) -> Score:
        truth, said = (facts(text) for text in (reference, candidate))
        if not all(truth[name] for name in STATED):
            return Score({}, NOT_PHANTOM)
        right = {name: float(said[name] == fact) for name, fact in truth.items() if fact}
        return Score(right | {"all": min(right.values())})
