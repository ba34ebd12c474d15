"""ROUGE-L (C.-Y. Lin 2004): the longest common subsequence of words."""

from __future__ import annotations

from typing import Any

from harness.metrics._rouge import Rouge
from harness.metrics._text import Preprocess


class RougeL(Rouge):
    """The rouge-score library's `rougeL`: words in the same order, gaps allowed.

    beta weighs recall in f = (1 + beta²) p r / (r + beta² p): 1 is the library's f-measure, 1.2 is pycocoevalcap's,
    which besides cuts its words by the Penn Treebank rules.
    """

    kind, version = "rougeL", 1
    values = ("precision", "recall", "f")

    def __init__(self, name: str, beta: float, use_stemmer: bool, preprocess: Preprocess) -> None:
        super().__init__(name, use_stemmer, preprocess)
        self.beta = beta

    @property
    def weighing(self) -> str:
        """Of recall."""
        return f"beta={self.beta:g}|"

    def f(self, found: Any) -> float:
        """Precision and recall with their weights, 0 without a common word."""
        precision, recall, square = float(found.precision), float(found.recall), self.beta**2
        return (1 + square) * precision * recall / (recall + square * precision) if precision else 0.0
