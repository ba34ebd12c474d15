"""How long candidate and reference are: describes, and judges nothing."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

from harness.contracts import Pair, Score

VERSION = 1  # raise it with any change of this file that changes a value


class Lengths:
    """Words (between blanks) and characters of both raw texts, and the candidate's words per word of the reference.

    A reference without a word gives no ratio. More is not better, whatever a table's arrow says: near 1 is as expected.
    """

    values = ("reference_characters", "candidate_characters", "reference_words", "candidate_words", "ratio")
    needs = frozenset({"reference"})
    higher_is_better = True

    def __init__(self, name: str) -> None:
        self.name = name

    def missing(self) -> str | None:
        """Nothing is ever missing."""
        return None

    def signature(self) -> str:
        """What a value depends on besides its texts."""
        return f"{self.name}|v={VERSION}|words=blanks"

    def load(self, device: str, features: MutableMapping[str, bytes]) -> None:
        """Nothing to load."""

    def score(self, pairs: Sequence[Pair], references: Sequence[str]) -> list[Score]:
        """One score per pair; `references` are not used."""
        return [_score(pair.reference, pair.candidate) for pair in pairs]


def _score(reference: str, candidate: str) -> Score:
    of_words = [len(text.split()) for text in (reference, candidate)]
    counts = [len(reference), len(candidate), *of_words]
    values = dict(zip(Lengths.values, map(float, counts), strict=False))
    return Score(values | {"ratio": of_words[1] / of_words[0]} if of_words[0] else values)
