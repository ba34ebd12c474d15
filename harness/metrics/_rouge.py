"""ROUGE (C.-Y. Lin 2004) by the rouge-score library."""

from __future__ import annotations

from collections.abc import MutableMapping
from importlib.metadata import version
from typing import Any, ClassVar

from harness.contracts import Score
from harness.encoders.checkpoint import missing_package
from harness.metrics._text import Preprocess, TextMetric, preprocess, ruling


class Rouge(TextMetric):
    """One of the library's kinds. A word is a run of a-z and 0-9; every other character separates words.

    version: to be raised with any change that changes a value.
    """

    kind: ClassVar[str]
    version: ClassVar[int]

    def __init__(self, name: str, use_stemmer: bool, preprocess: Preprocess) -> None:
        super().__init__(name)
        self.use_stemmer, self.preprocess = use_stemmer, preprocess

    def missing(self) -> str | None:
        """Missing package and the command that helps; None when all is there."""
        return missing_package("rouge_score", "rouge-score")

    def signature(self) -> str:
        """Name, version and options: what a value depends on besides its texts."""
        options = f"stemmer={'yes' if self.use_stemmer else 'no'}|preprocess={self.preprocess}"
        return f"{self.name}|v={self.version}|lib={version('rouge-score')}|{self.weighing}{options}"

    @property
    def weighing(self) -> str:
        """The part of the signature about precision against recall; "" where they weigh the same."""
        return ""

    def load(self, device: str, features: MutableMapping[str, bytes]) -> None:
        """Make the scorer; there is nothing to put on a device."""
        from rouge_score.rouge_scorer import RougeScorer
        from rouge_score.tokenizers import DefaultTokenizer

        # The default tokenizer, named because leaving it out is announced in the log.
        self._scorer = RougeScorer([self.kind], tokenizer=DefaultTokenizer(self.use_stemmer))

    def _score(self, reference: str, candidate: str) -> Score:
        ruled = ruling(reference, candidate)
        if ruled is not None:
            return Score(dict.fromkeys(self.values, ruled))
        sides = (preprocess(text, self.preprocess) for text in (reference, candidate))
        found = self._scorer.score(*sides)[self.kind]
        rates = (float(found.precision), float(found.recall), self.f(found))
        return Score(dict(zip(self.values, rates, strict=True)))

    def f(self, found: Any) -> float:
        """The library's harmonic mean of precision and recall."""
        return float(found.fmeasure)
