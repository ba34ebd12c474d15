"""ROUGE-1 (C.-Y. Lin 2004): overlap of single words, counted with repetition."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from importlib.metadata import version

from harness.contracts import Pair, Score
from harness.encoders.checkpoint import missing_package
from harness.metrics._text import Preprocess, preprocess, ruling, score_distinct

VERSION = 1  # raise it with any change of this file that changes a value


class Rouge1:
    """The rouge-score library's `rouge1`. A word is a run of a-z and 0-9; every other character separates words."""

    values = ("precision", "recall", "f1")
    needs = frozenset({"reference"})
    higher_is_better = True

    def __init__(self, name: str, use_stemmer: bool, preprocess: Preprocess) -> None:
        self.name, self.use_stemmer, self.preprocess = name, use_stemmer, preprocess

    def missing(self) -> str | None:
        """Why the metric cannot run here, None when it can."""
        return missing_package("rouge_score", "rouge-score")

    def signature(self) -> str:
        """What a value depends on besides its texts."""
        stemmer = "yes" if self.use_stemmer else "no"
        return f"{self.name}|v={VERSION}|lib={version('rouge-score')}|stemmer={stemmer}|preprocess={self.preprocess}"

    def load(self, device: str, features: MutableMapping[str, bytes]) -> None:
        """Make the scorer; there is nothing to put on a device."""
        from rouge_score.rouge_scorer import RougeScorer
        from rouge_score.tokenizers import DefaultTokenizer

        # The default tokenizer, named because leaving it out is announced in the log.
        self._scorer = RougeScorer(["rouge1"], tokenizer=DefaultTokenizer(self.use_stemmer))

    def score(self, pairs: Sequence[Pair], references: Sequence[str]) -> list[Score]:
        """One score per pair; `references` are not used."""
        return score_distinct(pairs, lambda texts: [self._score(*text) for text in texts])

    def _score(self, reference: str, candidate: str) -> Score:
        ruled = ruling(reference, candidate)
        if ruled is not None:
            return Score(dict.fromkeys(self.values, ruled))
        sides = (preprocess(text, self.preprocess) for text in (reference, candidate))
        found = self._scorer.score(*sides)["rouge1"]
        return Score({"precision": found.precision, "recall": found.recall, "f1": found.fmeasure})
