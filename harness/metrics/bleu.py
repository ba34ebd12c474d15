"""BLEU (Papineni et al. 2002): shared n-grams of one to four words, with a penalty for short candidates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from harness.contracts import Score
from harness.metrics._text import ruling
from harness.metrics._words import WordMetric, Words, tokenizer_signature, words

VERSION = 1  # raise it with any change of this file or of _words.py that changes a value
ORDERS = (1, 2, 3, 4)
TINY, SMALL = 1e-15, 1e-9  # pycocoevalcap's, in place of 0 in numerators and denominators


class Bleu(WordMetric):
    """Cumulative BLEU-1 to BLEU-4 of one sentence, as pycocoevalcap has it (bleu_scorer.py) for one reference.

    A candidate without a common n-gram of some order gets almost 0, not smoothed further; one of less than four words
    has no 4-gram and never reaches 1. The mean over samples is not the BLEU of the corpus: for that the counts are
    values, too, and `corpus` adds them up.
    """

    values = (
        "candidate_words", "reference_words", "matches1", "matches2", "matches3", "matches4",
        "bleu1", "bleu2", "bleu3", "bleu4",
    )  # fmt: skip

    def signature(self) -> str:
        """Name, version and options: what a value depends on besides its texts."""
        return f"{self.name}|v={VERSION}|{tokenizer_signature(self.tokenizer)}"

    def _score(self, reference: str, candidate: str) -> Score:
        right, said = (words(text, self.tokenizer) for text in (reference, candidate))
        matches = [(_ngrams(right, order) & _ngrams(said, order)).total() for order in ORDERS]
        ruled = ruling(reference, candidate)
        rates = (
            [ruled] * len(ORDERS) if ruled is not None else _bleu(matches, _possible(len(said)), len(said), len(right))
        )
        counts = [len(said), len(right), *matches]
        return Score(dict(zip(self.values, [*map(float, counts), *rates], strict=True)))


def corpus(scores: Sequence[Score]) -> dict[str, float]:
    """bleu1 to bleu4 of all samples together, from the counts of those that have values."""
    rows = [score.values for score in scores if score.values]
    matches = [sum(row[f"matches{order}"] for row in rows) for order in ORDERS]
    possible = [sum(counts) for counts in zip(*(_possible(row["candidate_words"]) for row in rows), strict=True)]
    lengths = [sum(row[name] for row in rows) for name in ("candidate_words", "reference_words")]
    return {f"bleu{order}": rate for order, rate in zip(ORDERS, _bleu(matches, possible, *lengths), strict=True)}


def _bleu(matches: Sequence[float], possible: Sequence[float], candidate: float, reference: float) -> list[float]:
    """Geometric means of the first one to four precisions; a candidate shorter than the reference pays for it."""
    ratio = (candidate + TINY) / (reference + SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    product, rates = 1.0, []
    for order, found, total in zip(ORDERS, matches, possible, strict=True):
        product *= (found + TINY) / (total + SMALL)
        rates.append(product ** (1 / order) * penalty)
    return rates


def _possible(length: float) -> list[float]:
    """How many n-grams of each order a text of so many words has."""
    return [max(0, length - order + 1) for order in ORDERS]


def _ngrams(text: Words, order: int) -> Counter[Words]:
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))
