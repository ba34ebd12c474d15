"""Duplicates: pictures that are the same or look the same, found without comparing each with each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from harness.contracts import SPLITS
from harness.curation.pictures import Facts
from harness.curation.problems import Problem

DISTANCE = 6  # bits of 64
BANDS = tuple((9 * place, 9 if place < DISTANCE else 10) for place in range(DISTANCE + 1))
"""(first bit, bits): one band more than bits may differ, so that two close hashes have at least one in common."""
CORRELATION = 0.99  # of the thumbnails; hashes alone confuse neighbours of one series and films of one view
RESIDUAL = (0.8, 2.5)
"""Standard deviation and maximum, in grey levels, of what is left of a thumbnail when the other one is taken from it at
the best contrast. Recompression (JPEG at 50), scaling and contrast stay below; another picture of the same drawn body
does not: of 3,102 pairs of phantoms with close hashes the least has 0.83."""
BLOCK = 256  # rows of one bucket compared at a time, so that a crowded bucket needs no more memory
PAIRS = 4096  # thumbnails compared at a time: 4 MB for each array of them


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a row with its facts."""

    split: str
    id: str
    facts: Facts


def duplicate_pictures(pictures: Sequence[Picture]) -> Iterator[Problem]:
    """Same pixels, then same looks. Of each group one picture stays without a word: the first of the last split.

    So test pictures that are also trained on are named on the training side, and the test split stays whole.
    """
    groups: dict[str, list[int]] = {}
    for place, picture in enumerate(pictures):
        groups.setdefault(picture.facts.pixels, []).append(place)
    for members in groups.values():
        yield from _named(pictures, members, "same_image_in_other_split", "duplicate_image", "the same pixels as")
    # A blank picture is like every other one.
    single = [members[0] for members in groups.values() if not pictures[members[0]].facts.blank]
    for members in similar_groups([pictures[place].facts for place in single]):
        found = [place for member in members for place in groups[pictures[single[member]].facts.pixels]]
        yield from _similar(pictures, found)


def similar_groups(facts: Sequence[Facts]) -> list[list[int]]:
    """Groups of places whose hashes differ in at most DISTANCE bits and whose thumbnails agree, in stable order."""
    if not facts:
        return []
    hashes = np.array([int(f.hash, 16) for f in facts], np.uint64)
    thumbs = np.frombuffer(b"".join(bytes.fromhex(f.thumb) for f in facts), np.uint8).reshape(len(facts), -1)
    pairs = [np.empty((2, 0), np.int64)]
    for left, right in _sliced(close_pairs(hashes)):
        pairs.append(np.stack([left, right])[:, _agree(thumbs[left], thumbs[right])])
    same = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(same.shape[1], np.bool_), tuple(same)), (len(facts), len(facts)))
    groups: dict[int, list[int]] = {}
    for place, group in enumerate(connected_components(graph, directed=False)[1].tolist()):
        groups.setdefault(group, []).append(place)
    return [members for members in groups.values() if len(members) > 1]


def close_pairs(hashes: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of places at most DISTANCE bits apart, in batches: they have a band in common. Each pair comes once."""
    for number, (first, bits) in enumerate(BANDS):
        values = (hashes >> np.uint64(first)) & np.uint64(2**bits - 1)
        order = np.argsort(values, kind="stable")
        edges = np.flatnonzero(np.diff(values[order])) + 1
        for bucket in np.split(order, edges):
            for start in range(0, len(bucket) if len(bucket) > 1 else 0, BLOCK):
                block, rest = bucket[start : start + BLOCK], bucket[start:]
                apart = hashes[block][:, None] ^ hashes[rest][None, :]
                row, column = np.nonzero(np.bitwise_count(apart) <= DISTANCE)
                new = (column > row) & _first_in_common(apart[row, column], number)
                if new.any():
                    yield block[row[new]], rest[column[new]]


def _first_in_common(apart: NDArray[np.uint64], number: int) -> NDArray[np.bool_]:
    """Whether hashes that differ in these bits have none of the bands before this one in common."""
    found = np.ones(apart.shape, np.bool_)
    for first, bits in BANDS[:number]:
        found &= (apart >> np.uint64(first)) & np.uint64(2**bits - 1) != 0
    return found


def _sliced(
    pairs: Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    for left, right in pairs:
        for start in range(0, len(left), PAIRS):
            yield left[start : start + PAIRS], right[start : start + PAIRS]


def _agree(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which rows show the same picture but for contrast, brightness and compression."""
    a, b = (part.astype(np.float32) - part.mean(axis=1, keepdims=True, dtype=np.float32) for part in (left, right))
    product, square = (a * b).sum(axis=1), np.maximum((a * a).sum(axis=1), 1e-6)
    correlation = product / np.sqrt(square * np.maximum((b * b).sum(axis=1), 1e-6))
    rest = b - (product / square)[:, None] * a
    deviation, most = RESIDUAL
    same: NDArray[np.bool_] = (
        (correlation >= CORRELATION) & (rest.std(axis=1) <= deviation) & (np.abs(rest).max(axis=1) <= most)
    )
    return same


def _named(
    pictures: Sequence[Picture], members: Sequence[int], across: str, within: str, how: str
) -> Iterator[Problem]:
    kept = _kept(pictures, members)
    for place in members:
        picture = pictures[place]
        if place != kept and (picture.split, picture.id) != (pictures[kept].split, pictures[kept].id):
            kind = within if picture.split == pictures[kept].split else across
            yield Problem(picture.split, picture.id, kind, f"{how} {pictures[kept].split}:{pictures[kept].id}")


def _similar(pictures: Sequence[Picture], members: Sequence[int]) -> Iterator[Problem]:
    """As `_named`; a member with the very pixels of the kept one has been named before."""
    kept = _kept(pictures, members)
    rest = [m for m in members if m == kept or pictures[m].facts.pixels != pictures[kept].facts.pixels]
    yield from _named(pictures, rest, "similar_image_in_other_split", "similar_image", "looks the same as")


def _kept(pictures: Sequence[Picture], members: Sequence[int]) -> int:
    return min(members, key=lambda place: (-SPLITS.index(pictures[place].split), place))
