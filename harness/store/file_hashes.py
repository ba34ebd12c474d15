"""The sha256 of a checkpoint's files. Hashing 15 GB takes a minute: that of large ones is remembered for this user."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from harness.contracts import RequestError
from harness.store.files_cache import Memo

LARGE = 8 * 2**20  # bytes; a smaller file is hashed in the time it takes to ask
FILE = "files.sqlite"


def content_hash(path: Path) -> bytes:
    """The digest of a file's bytes. A large one is read again once its size or a time of change is another.

    Kept under $XDG_CACHE_HOME/capbench, otherwise ~/.cache/capbench. Raises OSError when the file cannot be read.
    """
    folder = _folder()
    if path.stat().st_size < LARGE or not folder:
        return _hash(path)
    try:
        return _memo(folder).ask("sha256", path, "", lambda: _hash(path))
    except RequestError:  # a home that cannot be written, as in many containers: it costs the time, nothing else
        return _hash(path)


def _folder() -> str:
    """Empty for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 (raises without a home)
    return str(Path(base) / "capbench") if Path(base).is_absolute() else ""


@lru_cache(maxsize=1)
def _memo(folder: str) -> Memo:
    return Memo(folder, file=FILE)


def _hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
