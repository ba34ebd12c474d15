"""What was computed once from the same content: scores of pairs, features of texts and pictures, numbers in files.

One SQLite file, safe for several processes (WAL). Losing it costs time, never a result, so that a damaged one is set
aside.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TypeVar

from harness.machine.terminal import errors

FILE = "cache.sqlite"
WAIT = 60.0  # seconds for another process to finish its write
AT_ONCE = 500  # keys of one query; SQLite allows 999 in old versions
CHECK = 8  # bytes in front of each value: SQLite does not notice a flipped bit in one

T = TypeVar("T")


class Cache:
    """`scores`, `features`, `files` of a results folder. Raises nothing for a damaged file: it starts anew and says so.

    The file is opened at the first use, so that a command that needs nothing of it leaves it as it is.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._connection: sqlite3.Connection | None = None
        self.scores = Table(self, "scores")
        self.features = Table(self, "features")
        self.files = Table(self, "files")

    def close(self) -> None:
        """Give the file up; a later use opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def attempt(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """The result of some work on the file, or `otherwise` when the file is damaged."""
        try:
            return work(self._open())
        except sqlite3.OperationalError:
            raise  # busy or full: the file itself is whole
        except sqlite3.DatabaseError as error:
            self._set_aside(error)
            return otherwise

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _connect(self.path)
        return self._connection

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        self.close()
        number = 1
        while (aside := self.path.with_suffix(f".damaged-{number}")).exists():
            number += 1
        self.path.rename(aside)
        for companion in ("-wal", "-shm"):
            self.path.with_name(f"{self.path.name}{companion}").unlink(missing_ok=True)
        errors.print(
            f"{self.path}: damaged ({error}); moved to {aside.name}, what it held is computed again", markup=False
        )


class Table(MutableMapping[str, bytes]):
    """Hex digest -> bytes. `read` and `write` take many at once."""

    def __init__(self, cache: Cache, name: str) -> None:
        self.cache, self.name = cache, name

    def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Those of the keys that are there, whole."""
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), AT_ONCE):
            part = [bytes.fromhex(key) for key in keys[start : start + AT_ONCE]]
            query = f"SELECT key, value FROM {self.name} WHERE key IN ({','.join('?' * len(part))})"
            rows = self._select(query, part)
            found |= {key.hex(): value[CHECK:] for key, value in rows if value[:CHECK] == _check(key, value[CHECK:])}
        return found

    def write(self, items: Mapping[str, bytes]) -> None:
        """Add or replace, all or nothing."""
        raw = {bytes.fromhex(key): value for key, value in items.items()}
        rows = [(key, _check(key, value) + value) for key, value in raw.items()]
        self.cache.attempt(lambda c: _insert(c, self.name, rows), None)

    def _select(self, query: str, values: Sequence[bytes] = ()) -> list[tuple[bytes, ...]]:
        nothing: list[tuple[bytes, ...]] = []
        return self.cache.attempt(lambda connection: connection.execute(query, values).fetchall(), nothing)

    def __getitem__(self, key: str) -> bytes:
        return self.read([key])[key]

    def __setitem__(self, key: str, value: bytes) -> None:
        self.write({key: value})

    def __delitem__(self, key: str) -> None:
        raw = bytes.fromhex(key)

        def delete(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute(f"DELETE FROM {self.name} WHERE key = ?", [raw])

        self[key]  # raises KeyError
        self.cache.attempt(delete, None)

    def __iter__(self) -> Iterator[str]:
        return iter([key.hex() for (key,) in self._select(f"SELECT key FROM {self.name}")])

    def __len__(self) -> int:
        return int(self.cache.attempt(lambda c: c.execute(f"SELECT count(*) FROM {self.name}").fetchone()[0], 0))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=WAIT)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")  # a power cut may cost the last writes, nothing else
        with connection:
            for name in ("scores", "features", "files"):
                connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {name} (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
                )
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def _insert(connection: sqlite3.Connection, table: str, rows: Sequence[tuple[bytes, bytes]]) -> None:
    with connection:
        connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", rows)


def _check(key: bytes, value: bytes) -> bytes:
    return hashlib.sha256(key + value).digest()[:CHECK]
