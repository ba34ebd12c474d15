"""Typical caption: one to stand for many."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.contracts import RequestError


class FromCaptions:
    """Base of the controls that know the training captions and look at no picture."""

    replaces_captioner = True

    def __init__(self, name: str, sampled: int) -> None:
        self.name, self.sampled = name, sampled
        if sampled < 2:
            raise RequestError(f"control.sampled: expected 2 or more, got {sampled}")

    def digest(self) -> str:
        """There is no checkpoint."""
        return ""


@dataclass(frozen=True)
class Typical:
    """A caption, by which rule it was found, and how often it is there among how many, distinct ones and all."""

    caption: str
    rule: str
    count: int
    distinct: int
    captions: int


def typical(captions: Sequence[str], sampled: int) -> Typical:
    """The most frequent caption, white space aside; of equals the first.

    Where no caption is there twice, as with long captions by hand, frequency says nothing: then the one that shares
    most words with the others, by the mean of the unigram F1 of ROUGE-1, among at most `sampled` taken at even steps.
    """
    found = Counter(" ".join(caption.split()) for caption in captions)
    caption, count = max(found.items(), key=lambda item: item[1])
    rule = "most frequent"
    if count == 1 and len(found) > 1:
        candidates = list(found)[:: -(-len(found) // sampled)]
        caption, rule = candidates[_central(candidates)], "most words in common with the others"
    return Typical(caption, rule, count, len(found), len(captions))


def _central(captions: Sequence[str]) -> int:
    """The place of the caption with the highest mean F1 with the others, the first of equals."""
    words = [Counter(re.findall("[a-z0-9]+", caption.lower())) for caption in captions]
    vocabulary = {word: place for place, word in enumerate(dict.fromkeys(word for one in words for word in one))}
    counts = np.zeros((len(words), len(vocabulary)), dtype=np.int32)
    for row, one in zip(counts, words, strict=True):
        row[[vocabulary[word] for word in one]] = list(one.values())
    lengths = counts.sum(axis=1)
    means = np.empty(len(words))
    for place, row in enumerate(counts):
        own = np.flatnonzero(row)
        shared = np.minimum(row[own], counts[:, own]).sum(axis=1)
        f1 = 2 * shared / np.maximum(lengths[place] + lengths, 1)
        means[place] = f1.sum() - f1[place]
    return int(means.argmax())
