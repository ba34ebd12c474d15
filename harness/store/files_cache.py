"""Files cache: what was found out about stored bytes, kept for as long as their file stays as it was.

Hashing or decoding a hundred thousand pictures takes minutes, hashing a checkpoint of 15 GB a minute, asking for sizes
and times of change next to nothing.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.contracts import RequestError
from harness.store.database import Database

FILE = "pictures.sqlite"
USER_FILE = "files.sqlite"  # of this user's checkpoints
TABLE = "known"
SETTLED = 2_000_000_000  # ns; a younger file may change again within the clock tick of its last change: not kept
LARGE = 8 * 2**20  # bytes; a smaller file is hashed in the time it takes to ask


class Memo:
    """Answers by question, file, size, times of change and the part of the file. `anew` asks everything once more."""

    def __init__(self, folder: str, *, anew: bool = False, file: str = FILE) -> None:
        self.anew = anew
        self._known = Database(Path(folder) / file, TABLE).tables[TABLE]
        self._asked: set[str] = set()

    def ask(self, question: str, path: str | Path, part: str, answer: Callable[[], bytes]) -> bytes:
        """The known answer, else a new one, kept unless the file changes meanwhile. What `answer` raises is not.

        Raises RequestError when the folder cannot be used.
        """
        stamp = _stamp(path)
        if stamp is None:
            return answer()  # it says best why the file cannot be read
        text = "\0".join((question, os.path.abspath(path), *map(str, stamp), part))  # noqa: PTH100 (10 times as fast)
        key = hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()
        if not self.anew or key in self._asked:
            with self._usable():
                known = self._known.get(key)
            if known is not None:
                return known
        found, now = answer(), time.time_ns()
        if _stamp(path) == stamp and now - max(stamp[1:]) > SETTLED:
            with self._usable():
                self._known[key] = found
        if self.anew:
            self._asked.add(key)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """A task for a spawned worker is no place for all keys."""
        return {**self.__dict__, "_asked": set()}

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            where = f"dataset.cache={self._known.database.path.parent}"
            raise RequestError(f"{where}: {error}; choose another folder, or null to remember nothing") from error


def content_hash(path: Path) -> bytes:
    """The sha256 of a file's bytes. A large one is read again once its size or a time of change is another.

    Kept under $XDG_CACHE_HOME/capbench, otherwise ~/.cache/capbench. Raises OSError when the file cannot be read.
    """
    folder = _user_folder()
    if path.stat().st_size < LARGE or not folder:
        return _hash(path)
    try:
        return _user_memo(folder).ask("sha256", path, "", lambda: _hash(path))
    except RequestError:  # a home that cannot be written, as in many containers: it costs the time, nothing else
        return _hash(path)


def _user_folder() -> str:
    """Empty for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 (raises without a home)
    return str(Path(base) / "capbench") if Path(base).is_absolute() else ""


@lru_cache(maxsize=1)
def _user_memo(folder: str) -> Memo:
    return Memo(folder, file=USER_FILE)


def _hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _stamp(path: str | Path) -> tuple[int, int, int] | None:
    """Size and times of change (ns): of the content, which tools can set back, and of the inode, which they cannot."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
