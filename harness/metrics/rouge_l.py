"""ROUGE-L (C.-Y. Lin 2004): the longest common subsequence of words."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from importlib.metadata import version

from harness.contracts import Pair, Score
from harness.encoders.checkpoint import missing_package
from harness.metrics._text import Preprocess, preprocess, ruling, score_distinct

VERSION = 1  # raise it with any change of this file that changes a value


class RougeL:
    """The rouge-score library's `rougeL`: words in the same order, gaps allowed.

    beta weighs recall in f = (1 + beta²) p r / (r + beta² p): 1 is the library's f-measure, 1.2 is pycocoevalcap's,
    which besides cuts its words by the Penn Treebank rules.
    """

    values = ("precision", "recall", "f")
    needs = frozenset({"reference"})
    higher_is_better = True

    def __init__(self, name: str, beta: float, use_stemmer: bool, preprocess: Preprocess) -> None:
        self.name, self.beta, self.use_stemmer, self.preprocess = name, beta, use_stemmer, preprocess

    def missing(self) -> str | None:
        """Why the metric cannot run here, None when it can."""
        return missing_package("rouge_score", "rouge-score")

    def signature(self) -> str:
        """What a value depends on besides its texts."""
        stemmer = "yes" if self.use_stemmer else "no"
        options = f"beta={self.beta:g}|stemmer={stemmer}|preprocess={self.preprocess}"
        return f"{self.name}|v={VERSION}|lib={version('rouge-score')}|{options}"

    def load(self, device: str, features: MutableMapping[str, bytes]) -> None:
        """Make the scorer; there is nothing to put on a device."""
        from rouge_score.rouge_scorer import RougeScorer
        from rouge_score.tokenizers import DefaultTokenizer

        # The default tokenizer, named because leaving it out is announced in the log.
        self._scorer = RougeScorer(["rougeL"], tokenizer=DefaultTokenizer(self.use_stemmer))

    def score(self, pairs: Sequence[Pair], references: Sequence[str]) -> list[Score]:
        """One score per pair; `references` are not used."""
        return score_distinct(pairs, lambda texts: [self._score(*text) for text in texts])

    def _score(self, reference: str, candidate: str) -> Score:
        ruled = ruling(reference, candidate)
        if ruled is not None:
            return Score(dict.fromkeys(self.values, ruled))
        sides = (preprocess(text, self.preprocess) for text in (reference, candidate))
        found = self._scorer.score(*sides)["rougeL"]
        return Score(dict(zip(self.values, self._rates(float(found.precision), float(found.recall)), strict=True)))

    def _rates(self, precision: float, recall: float) -> tuple[float, float, float]:
        square = self.beta**2
        f = (1 + square) * precision * recall / (recall + square * precision) if precision else 0.0
        return precision, recall, f
