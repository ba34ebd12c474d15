"""Cells of a table: text, split, concepts, the place of a picture."""

from __future__ import annotations

import difflib
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.contracts import SPLITS, RequestError
from harness.datasets._wording import Clean, cleaned

SPLIT_NAMES = {"train": "train", **dict.fromkeys(("valid", "validation", "val", "dev"), "valid"), "test": "test"}


class CellError(Exception):
    """A cell that makes its row unusable; the message is the reason in the ledger."""


def find_column(asked: str | None, usual: str, columns: Sequence[str], option: str) -> str | None:
    """The column asked for, by its exact name or regardless of case; without one the usual name if it is there.

    Raises RequestError when the one asked for is missing.
    """
    folded = {name.casefold(): name for name in reversed(columns)}
    wanted = usual if asked is None else asked
    found = wanted if wanted in columns else folded.get(wanted.casefold())
    if found is None and asked is not None:
        near = difflib.get_close_matches(asked.casefold(), list(folded), n=1)
        hint = f"; did you mean {folded[near[0]]!r}?" if near else ""
        raise RequestError(
            f"dataset.{option}={asked}: no such column, found {', '.join(columns) or 'none'}{hint}; "
            f"name yours with dataset.{option}=NAME"
        )
    return found


def plain_text(value: Any, what: str) -> str:
    """A cell as text without white space at both ends; "" for an empty one, also as pandas writes it (nan)."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise CellError(f"{what} is a {type(value).__name__}, expected text")
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can write half of a surrogate pair
        raise CellError(f"{what} holds characters that cannot be written as UTF-8") from None
    return text


def caption_text(value: Any, clean: Clean = "strip") -> str:
    """The caption, changed as `clean` says and no further: line breaks and quotes are the author's."""
    if isinstance(value, int | float) and value == value:
        raise CellError(f"caption is a {type(value).__name__}, expected text")
    text = cleaned(str(value), clean) if plain_text(value, "caption") else ""
    if not text.strip():
        raise CellError("caption is empty")
    return text


def split_name(value: Any) -> str:
    """train, valid or test for one of the usual names."""
    text = plain_text(value, "split")
    if text.lower() not in SPLIT_NAMES:
        raise CellError(f"split {text!r}, expected {', '.join(SPLIT_NAMES)}")
    return SPLIT_NAMES[text.lower()]


def shared_split(identity: str, shares: Mapping[str, float]) -> str:
    """A split drawn by the id alone, so that a row stays where it is when the table grows."""
    draw = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") / 2**64
    total = 0.0
    for split in SPLITS:
        total += shares[split]
        if draw < total:
            return split
    return SPLITS[-1]  # the shares sum up to 1 but for rounding


def concept_ids(value: Any) -> tuple[str, ...]:
    """A list as it is, a JSON list, or text with ";" between; without "" and "nan", which stand for no concept."""
    if isinstance(value, str) and value.isascii() and "[" not in value:
        return _plain_concepts(value)
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise CellError(f"concepts {value.strip()[:40]!r} are no JSON list") from None
    parts = value if isinstance(value, list) else plain_text(value, "concepts").split(";")
    names = [plain_text(part, "concept") for part in parts]
    return tuple(name for name in names if name and name.lower() != "nan")


@lru_cache(maxsize=1 << 16)
def _plain_concepts(value: str) -> tuple[str, ...]:
    """Nearly all cells of a hundred thousand, few of them different: each tuple is kept once."""
    return tuple(sys.intern(name) for part in value.split(";") if (name := part.strip()) and name.lower() != "nan")


def picture_path(given: Any, root: Path) -> tuple[str, Path]:
    """The path as given, and the file. `root` is resolved; links and ".." must not lead out of it."""
    text = plain_text(given, "image")
    if not text:
        raise CellError("no image: the cell is empty")
    try:
        path = (root / text).resolve()
        inside, there = path.is_relative_to(root), path.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise CellError(f"image {text[:80]!r} is no path: {getattr(error, 'strerror', None) or error}") from None
    if not inside:
        raise CellError(f"image {text!r} lies outside of dataset.root={root}")
    if not there:
        raise CellError(f"image {text!r} does not exist in {root}")
    return text, path
