"""Cleaning of captions, as far as a dataset's yaml asks for it."""

from __future__ import annotations

from typing import Literal

Clean = Literal["none", "strip", "whitespace", "typography"]

TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"'),
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032", "'"),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        **dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff", ""),  # soft hyphen, characters without width
        "\u2026": "...",
    }
)


def cleaned(text: str, how: Clean) -> str:
    """The caption under one rule; each rule does what those before it do.

    none: as it is. strip: no white space at both ends. whitespace: runs of it, line breaks too, become one blank.
    typography: quotes, dashes and dots of printers become those of typewriters.
    """
    if how == "none":
        return text
    if how == "strip":
        return text.strip()
    return " ".join((text.translate(TYPOGRAPHY) if how == "typography" else text).split())
