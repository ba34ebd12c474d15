"""What was found out about stored bytes, for as long as their file stays as it was. One SQLite file.

Hashing or decoding a hundred thousand pictures takes minutes, asking for their sizes and times a second. Safe for
several processes (WAL) and after a fork. Losing the file costs time, never a result: a damaged one is set aside.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from harness.contracts import RequestError

FILE = "pictures.sqlite"
WAIT = 60.0  # seconds for another process to finish its write
CHECK = 8  # bytes in front of each value: SQLite does not notice a flipped bit in one
SETTLED = 2_000_000_000  # ns; a younger file may change again within the clock tick of its last change: not kept

_inherited: list[sqlite3.Connection] = []
"""Connections of a parent process: a forked child may neither use nor close them."""


class Memo:
    """Answers by question, file, size, times of change and the part of the file. `anew` asks everything once more.

    The file is opened at the first question, so that building a dataset touches nothing.
    """

    def __init__(self, folder: str, *, anew: bool = False, file: str = FILE) -> None:
        self.path, self.anew = Path(folder) / file, anew
        self._asked: set[bytes] = set()
        self._forget_connection()

    def ask(self, question: str, path: str | Path, part: str, answer: Callable[[], bytes]) -> bytes:
        """The known answer, else a new one, kept unless the file changes meanwhile. What `answer` raises is not."""
        stamp = _stamp(path)
        if stamp is None:
            return answer()  # it says best why the file cannot be read
        text = "\0".join((question, os.path.abspath(path), *map(str, stamp), part))  # noqa: PTH100 (10 times as fast)
        key = hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).digest()
        if not self.anew or key in self._asked:
            known = self._read(key)
            if known is not None:
                return known
        found, now = answer(), time.time_ns()
        if _stamp(path) == stamp and now - max(stamp[1:]) > SETTLED:
            self._write(key, found)
        if self.anew:
            self._asked.add(key)
        return found

    def __getstate__(self) -> tuple[Path, bool]:
        """Spawned workers open the file themselves."""
        return self.path, self.anew

    def __setstate__(self, state: tuple[Path, bool]) -> None:
        self.path, self.anew = state
        self._asked = set()
        self._forget_connection()

    def _forget_connection(self) -> None:
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._lock = threading.Lock()

    def _read(self, key: bytes) -> bytes | None:
        rows = self._attempt("SELECT value FROM known WHERE key = ?", (key,))
        if not rows or rows[0][0][:CHECK] != _check(key, rows[0][0][CHECK:]):
            return None
        value: bytes = rows[0][0][CHECK:]
        return value

    def _write(self, key: bytes, value: bytes) -> None:
        self._attempt("INSERT OR REPLACE INTO known VALUES (?, ?)", (key, _check(key, value) + value))

    def _attempt(self, statement: str, values: tuple[bytes, ...]) -> list[tuple[bytes]]:
        """The rows of a statement; none when the file is damaged. Raises RequestError when it cannot be used."""
        with self._lock:
            try:
                return self._open().execute(statement, values).fetchall()
            except (sqlite3.OperationalError, OSError) as error:  # busy, full, not ours to write
                where = f"dataset.cache={self.path.parent}"
                raise RequestError(f"{where}: {error}; choose another folder, or null to remember nothing") from error
            except sqlite3.DatabaseError:
                self._set_aside()
                return []

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._process != os.getpid():
            _inherited.append(self._connection)
            self._connection = None
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection, self._process = _connect(self.path), os.getpid()
        return self._connection

    def _set_aside(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            self.path.replace(self.path.with_suffix(".damaged"))
        for companion in ("-wal", "-shm"):
            self.path.with_name(f"{self.path.name}{companion}").unlink(missing_ok=True)


def _stamp(path: str | Path) -> tuple[int, int, int] | None:
    """Size and times of change (ns): of the content, which tools can set back, and of the inode, which they cannot."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=WAIT, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")  # a power cut may cost the last writes, nothing else
        connection.execute("CREATE TABLE IF NOT EXISTS known (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def _check(key: bytes, value: bytes) -> bytes:
    return hashlib.sha256(key + value).digest()[:CHECK]
