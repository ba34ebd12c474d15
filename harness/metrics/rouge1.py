"""ROUGE-1 (C.-Y. Lin 2004): overlap of single words, counted with repetition."""

from __future__ import annotations

from harness.metrics._rouge import Rouge


class Rouge1(Rouge):
    """The rouge-score library's `rouge1`."""

    kind, version = "rouge1", 1
    values = ("precision", "recall", "f1")
