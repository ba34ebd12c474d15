"""Base of the text metrics, the ImageCLEF preprocessing, rulings on empty texts, each distinct pair once."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, MutableMapping, Sequence
from typing import Literal

from harness.contracts import Pair, Score

Preprocess = Literal["imageclef", "none"]
Texts = tuple[str, str]
"""Reference and candidate."""

_DIGITS = re.compile(r"\d+")
_DELETE = str.maketrans("", "", string.punctuation)


def preprocess(text: str, how: Preprocess) -> str:
    """ImageCLEFmedical Caption: lower case, each run of digits becomes "number", ASCII punctuation is deleted.

    Nothing is stripped and no blank put in, so "T2-weighted" becomes "tnumberweighted", as in the official evaluators.
    """
    return text if how == "none" else _DIGITS.sub("number", text.lower()).translate(_DELETE)


def ruling(reference: str, candidate: str) -> float | None:
    """The value of a pair with an empty text, None where the metric decides: both empty 1, one of them 0.

    Empty is the raw text of length 0. "..." is not, though nothing of it is left after the preprocessing.
    """
    if reference and candidate:
        return None
    return 1.0 if reference == candidate else 0.0


class TextMetric:
    """A metric of reference and candidate that needs no package, no checkpoint and no other reference.

    A subclass says its `values`, its `signature` and either `_score`, of one pair, or `_compute`, of all distinct ones.
    """

    values: tuple[str, ...]
    needs = frozenset({"reference"})
    higher_is_better = True

    def __init__(self, name: str) -> None:
        self.name = name

    def missing(self) -> str | None:
        """Missing package or file and the command that helps; None when all is there."""
        return None

    def load(self, device: str, features: MutableMapping[str, bytes]) -> None:
        """Nothing to load."""

    def score(self, pairs: Sequence[Pair], references: Sequence[str]) -> list[Score]:
        """One score per pair; `references` are not used."""
        return score_distinct(pairs, self._compute)

    def _compute(self, texts: list[Texts]) -> list[Score]:
        return [self._score(*pair) for pair in texts]

    def _score(self, reference: str, candidate: str) -> Score:
        raise NotImplementedError(f"{type(self).__name__} has neither _score nor _compute; it needs one of the two")


def score_distinct(pairs: Sequence[Pair], compute: Callable[[list[Texts]], list[Score]]) -> list[Score]:
    """One score per pair, in order; `compute` sees every distinct (reference, candidate) once."""
    distinct = list(dict.fromkeys((pair.reference, pair.candidate) for pair in pairs))
    scores = dict(zip(distinct, compute(distinct), strict=True))
    return [scores[pair.reference, pair.candidate] for pair in pairs]
