"""Digests and identities: what counts as the same thing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from harness.store.files import Damaged

T = TypeVar("T")

SCHEMA = 1
"""Version of identities and file formats. A change of meaning raises it, so that old results are never mixed in."""


SHORT = 10  # hex digits in folder names: 40 bits, enough for any results folder; the manifest holds the whole identity


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """Hex sha256 of a JSON value in canonical form (sorted keys, no blanks)."""
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()


def through_json(value: T) -> T:
    """A value as it comes back from JSON, so that it compares equal to a stored one."""
    found: T = json.loads(json.dumps(value))
    return found


def file_digest(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def same_identity(folder: Path, known: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse to go on in a folder that belongs to another identity, with a readable diff. Raises Damaged."""
    lines = difference(known, asked)
    if lines:
        shown = "; ".join(lines[:5])
        raise Damaged(f"{folder}: holds another identity ({shown}); move the folder away or use another results=FOLDER")


def difference(left: Any, right: Any, key: str = "") -> list[str]:
    """'key: left -> right' for every leaf in which two JSON values differ."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        lines = []
        for name in sorted({*left, *right}):
            child = f"{key}.{name}" if key else str(name)
            lines += difference(left.get(name), right.get(name), child)
        return lines
    plain_left, plain_right = (list(v) if isinstance(v, tuple) else v for v in (left, right))
    return [] if plain_left == plain_right else [f"{key}: {_brief(plain_left)} -> {_brief(plain_right)}"]


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
