"""Facts of phantom captions: modality, region, finding and side of the reference, right in the candidate or not."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from harness.contracts import Score
from harness.datasets import _phantom_facts
from harness.encoders.files import hash_files
from harness.metrics._text import TextMetric

VERSION = 1  # raise it with any change of this file that changes a value
STATED = ("modality", "region", "finding")  # by every phantom caption; the side where it has a meaning
READER = ("_phantom_facts.py", "_phantom_lexicon.py", "_phantom_plan.py")
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
        return f"{self.name}|v={VERSION}|reader={self._reader}"

    @cached_property
    def _reader(self) -> str:
        folder = Path(_phantom_facts.__file__).parent
        return hash_files(folder, [folder / name for name in READER])[:12]

    def _score(self, reference: str, candidate: str) -> Score:
        truth, said = (_phantom_facts.facts(text) for text in (reference, candidate))
        if not all(truth[name] for name in STATED):
            return Score({}, NOT_PHANTOM)
        right = {name: float(said[name] == fact) for name, fact in truth.items() if fact}
        return Score(right | {"all": min(right.values())})
