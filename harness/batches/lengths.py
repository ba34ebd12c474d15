"""Lengths of rows, estimated before anything is decoded: for batches of rows alike, the longest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from PIL import Image

from harness.contracts import Captioner, ImageError, ImageSource, Measured, Query, Stored
from harness.machine.pillow import DAMAGE, FORMATS

LETTERS = 4  # of a token, about


def lengths(captioner: Captioner, queries: Sequence[Query], *, answers: bool) -> list[int]:
    """Places of the pictures, by their sizes (where the captioner measures them), of the question and the answer."""
    places = cache(captioner.places) if isinstance(captioner, Measured) else None
    texts = ((query.prompt, query.sample.caption if answers else "") for query in queries)
    words = [(len(question) + len(answer)) // LETTERS for question, answer in texts]
    return [count + _pictures(query, places) for count, query in zip(words, queries, strict=True)]


def longest_first(captioner: Captioner, queries: Sequence[Query]) -> list[Query]:
    """The same queries, what is equally long in its old order: memory that does not do shows at once."""
    found = lengths(captioner, queries, answers=False)
    return [queries[place] for place in sorted(range(len(queries)), key=lambda place: -found[place])]


def _pictures(query: Query, places: Callable[[tuple[int, int]], int] | None) -> int:
    if places is None:
        return 0
    sizes = [_size(image) for image in query.sample.images]
    return sum(places(size) for size in sizes if size)


def _size(source: ImageSource) -> tuple[int, int] | None:
    """(width, height) from the header of a picture file; None for what only its decoder can tell."""
    if not isinstance(source, Stored):
        return None
    try:
        with source.open() as stream, Image.open(stream, formats=FORMATS) as image:
            return image.size
    except (ImageError, *DAMAGE):
        return None  # what is wrong with the picture is said where it is decoded
