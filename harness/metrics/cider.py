"""CIDEr-D (Vedantam et al. 2015, arXiv 1411.5726): n-grams weighted by how rare they are in the references."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from harness.contracts import Pair, Score
from harness.metrics._text import Texts, ruling
from harness.metrics._words import Tokenizer, WordMetric, Words, tokenizer_signature, words

VERSION = 1  # raise it with any change of this file or of _words.py that changes a value
MAXIMUM = 10.0


class Vectors(NamedTuple):
    """One text: tf-idf weights and their norm for each order of n-grams, and its length in bigrams."""

    weights: list[dict[Words, float]]
    norms: list[float]
    length: int


class Cider(WordMetric):
    """CIDEr-D from 0 to 10 as pycocoevalcap has it (cider_scorer.py) for one reference per image.

    The mean over orders of clipped cosines, times a Gaussian of the difference in length. The document frequencies are
    those of all references of the split, so a value belongs to its split: with one reference every weight is 0.
    Texts of less than n words have no n-gram of the higher orders and stay below 10, even where they are identical.
    """

    values = ("cider",)
    needs = frozenset({"reference", "corpus"})

    def __init__(self, name: str, tokenizer: Tokenizer, n: int, sigma: float) -> None:
        super().__init__(name, tokenizer)
        self.n, self.sigma = n, sigma
        self._corpus: tuple[Sequence[str], Counter[Words]] | None = None

    def signature(self) -> str:
        """Name, version and options: what a value depends on besides its texts and the references of the split."""
        return f"{self.name}|v={VERSION}|n={self.n}|sigma={self.sigma:g}|{tokenizer_signature(self.tokenizer)}"

    def score(self, pairs: Sequence[Pair], references: Sequence[str]) -> list[Score]:
        """One score per pair."""
        if self._corpus is None or self._corpus[0] is not references:  # the same list for all parts of a split
            frequency = Counter(ngram for text in references for ngram in self._counts(text))
            self._corpus = (references, frequency)
        return super().score(pairs, references)

    def _compute(self, texts: list[Texts]) -> list[Score]:
        vectors = {side: self._vectors(side) for side in dict.fromkeys(side for text in texts for side in text)}
        return [Score({"cider": self._value(text, *(vectors[side] for side in text))}) for text in texts]

    def _value(self, texts: Texts, reference: Vectors, candidate: Vectors) -> float:
        ruled = ruling(*texts)
        if ruled is not None:
            return MAXIMUM * ruled
        cosines = (
            _clipped(candidate.weights[order], reference.weights[order])
            / ((candidate.norms[order] * reference.norms[order]) or 1.0)
            for order in range(self.n)
        )
        apart = candidate.length - reference.length
        return MAXIMUM * sum(cosines) / self.n * math.exp(-(apart**2) / (2 * self.sigma**2))

    def _vectors(self, text: str) -> Vectors:
        assert self._corpus is not None
        references, frequency = self._corpus
        known = math.log(max(1, len(references)))
        weights: list[dict[Words, float]] = [{} for _ in range(self.n)]
        counts = self._counts(text)
        for ngram, count in counts.items():
            weights[len(ngram) - 1][ngram] = count * (known - math.log(max(1, frequency[ngram])))
        norms = [math.sqrt(sum(weight**2 for weight in part.values())) for part in weights]
        return Vectors(weights, norms, sum(count for ngram, count in counts.items() if len(ngram) == 2))

    def _counts(self, text: str) -> Counter[Words]:
        return Counter(_ngrams(words(text, self.tokenizer), self.n))


def _ngrams(text: Words, n: int) -> Iterable[Words]:
    return (text[at : at + order] for order in range(1, n + 1) for at in range(len(text) - order + 1))


def _clipped(candidate: dict[Words, float], reference: dict[Words, float]) -> float:
    """The scalar product, in which repeating an n-gram gains nothing."""
    common = candidate.keys() & reference.keys()
    return math.fsum(min(candidate[ngram], reference[ngram]) * reference[ngram] for ngram in common)
