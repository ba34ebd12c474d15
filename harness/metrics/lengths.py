"""Lengths of candidate and reference: they describe, and judge nothing."""

from __future__ import annotations

from harness.contracts import Score
from harness.metrics._text import TextMetric

VERSION = 1  # raise it with any change of this file that changes a value


class Lengths(TextMetric):
    """Words (between blanks) and characters of both raw texts, and the candidate's words per word of the reference.

    A reference without a word gives no ratio. More is not better, whatever a table's arrow says: near 1 is as expected.
    """

    values = ("reference_characters", "candidate_characters", "reference_words", "candidate_words", "ratio")

    def signature(self) -> str:
        """Name, version and options: what a value depends on besides its texts."""
        return f"{self.name}|v={VERSION}|words=blanks"

    def _score(self, reference: str, candidate: str) -> Score:
        of_words = [len(text.split()) for text in (reference, candidate)]
        counts = [len(reference), len(candidate), *of_words]
        values = dict(zip(self.values, map(float, counts), strict=False))
        return Score(values | {"ratio": of_words[1] / of_words[0]} if of_words[0] else values)
