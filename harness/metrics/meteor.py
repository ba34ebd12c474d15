"""METEOR (Lavie and Agarwal 2007) with its exact and its stem matcher: no Java, no WordNet."""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import lru_cache
from importlib.metadata import version
from types import SimpleNamespace

from harness.contracts import Score
from harness.encoders.checkpoint import missing_package
from harness.metrics._text import ruling
from harness.metrics._words import Tokenizer, WordMetric, tokenizer_signature, words

VERSION = 1  # raise it with any change of this file or of _words.py that changes a value
NO_SYNONYMS = SimpleNamespace(synsets=lambda word: [])  # in the place of WordNet, whose data would be a download


class Meteor(WordMetric):
    """NLTK's METEOR without WordNet: synonyms and paraphrases are NOT matched, so it is no METEOR 1.5.

    fmean = p r / (alpha p + (1 - alpha) r) over matched words, lowered by gamma (chunks / matches)^beta, where a chunk
    is a run of matches in the same order on both sides. Identical texts of m words have 1 - gamma / m^beta, below 1.
    """

    values = ("meteor",)

    def __init__(self, name: str, tokenizer: Tokenizer, alpha: float, beta: float, gamma: float) -> None:
        super().__init__(name, tokenizer)
        self.alpha, self.beta, self.gamma = alpha, beta, gamma

    def missing(self) -> str | None:
        """Missing package and the command that helps; None when all is there."""
        return missing_package("nltk", "nltk")

    def signature(self) -> str:
        """Name, version and options: what a value depends on besides its texts."""
        options = f"alpha={self.alpha:g}|beta={self.beta:g}|gamma={self.gamma:g}"
        matchers = "matchers=exact,porter|synonyms=no|paraphrases=no"
        library = f"lib=nltk-{version('nltk')}"
        return f"{self.name}|v={VERSION}|{library}|{matchers}|{options}|{tokenizer_signature(self.tokenizer)}"

    def load(self, device: str, features: MutableMapping[str, bytes]) -> None:
        """Make the stemmer; there is nothing to put on a device."""
        from nltk.stem.porter import PorterStemmer

        self._stemmer = SimpleNamespace(stem=lru_cache(maxsize=65_536)(PorterStemmer().stem))

    def _score(self, reference: str, candidate: str) -> Score:
        from nltk.translate.meteor_score import single_meteor_score

        ruled = ruling(reference, candidate)
        if ruled is not None:
            return Score({"meteor": ruled})
        sides = [words(text, self.tokenizer) for text in (reference, candidate)]
        weights = {"alpha": self.alpha, "beta": self.beta, "gamma": self.gamma}
        value = single_meteor_score(*sides, stemmer=self._stemmer, wordnet=NO_SYNONYMS, **weights)
        return Score({"meteor": float(value)})
