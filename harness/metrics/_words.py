"""Words of the n-gram metrics, each text cut once."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.metadata import version
from typing import Literal

from harness.encoders.checkpoint import missing_package
from harness.metrics._text import TextMetric, preprocess

Tokenizer = Literal["imageclef", "treebank"]
Words = tuple[str, ...]

HELD = 8192  # texts: two for each pair of a part of the split
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
DROPPED = frozenset({*"()[]{}.?!,:;-`'", "''", "``", "--", "..."})
"""The punctuation that pycocoevalcap removes after tokenising."""


@lru_cache(maxsize=HELD)
def words(text: str, tokenizer: Tokenizer) -> Words:
    """imageclef: the ImageCLEF preprocessing, cut at blanks. treebank: lower case, Penn Treebank rules, no punctuation.

    pycocoevalcap runs Stanford's PTBTokenizer on Java. NLTK's port of the Treebank rules comes close to it, but looks
    for a full stop at a text's end only, so it gets one sentence at a time.
    """
    if tokenizer == "imageclef":
        return tuple(preprocess(text, "imageclef").split())
    from nltk.tokenize import TreebankWordTokenizer

    rules = TreebankWordTokenizer()
    found = (word for sentence in SENTENCE_END.split(text.lower()) for word in rules.tokenize(sentence))
    return tuple(word for word in found if word not in DROPPED)


class WordMetric(TextMetric):
    """A text metric on the words that a tokenizer finds."""

    def __init__(self, name: str, tokenizer: Tokenizer) -> None:
        super().__init__(name)
        self.tokenizer = tokenizer

    def missing(self) -> str | None:
        """Missing package and the command that helps; None when all is there."""
        return missing_package("nltk", "nltk") if self.tokenizer == "treebank" else None


def tokenizer_signature(tokenizer: Tokenizer) -> str:
    """Which words a value is made of."""
    return f"tokenizer={tokenizer}" + (f"-nltk-{version('nltk')}" if tokenizer == "treebank" else "")
