"""SQLite databases of what saves time: checked bytes by key. Losing one costs time, never a result.

Safe for several processes (WAL), threads, a fork and spawned workers. A damaged file is set aside and begun anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from harness.machine.terminal import errors

WAIT = 60.0  # seconds for another process to finish its write
AT_ONCE = 500  # keys of one query; SQLite allows 999 in old versions
CHECK = 8  # bytes in front of each value: SQLite does not notice a flipped bit in one

_inherited: list[sqlite3.Connection] = []
"""Connections of a parent process: a forked child may neither use nor close them."""


class Database:
    """A SQLite file with some tables, opened at the first use: building one touches nothing.

    Raises sqlite3.OperationalError and OSError where the file is whole but cannot be used: busy, full, not ours.
    """

    def __init__(self, path: Path, *tables: str) -> None:
        self.path, self.tables = path, {name: Table(self, name) for name in tables}
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Database], tuple[Path | str, ...]]:
        """Spawned workers open the file themselves."""
        return Database, (self.path, *self.tables)

    def execute(self, statement: str, values: Sequence[bytes] = ()) -> list[Any]:
        """The rows of a statement; none where the file is damaged."""
        return self._attempt(lambda connection: connection.execute(statement, values))

    def execute_each(self, statement: str, rows: Sequence[Sequence[bytes]]) -> None:
        """A statement for each of some rows, all or nothing."""
        self._attempt(lambda connection: connection.executemany(statement, rows))

    def close(self) -> None:
        """Give the file up; a later use opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _attempt(self, work: Callable[[sqlite3.Connection], sqlite3.Cursor]) -> list[Any]:
        with self._lock:
            try:
                connection = self._open()
                with connection:  # one transaction
                    return work(connection).fetchall()
            except sqlite3.OperationalError:
                raise  # the file itself is whole
            except sqlite3.DatabaseError as error:
                self._set_aside(error)
                return []

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._process != os.getpid():
            _inherited.append(self._connection)
            self._connection = None
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection, self._process = _connect(self.path, self.tables), os.getpid()
        return self._connection

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        self.close()
        number = 1
        while (aside := self.path.with_suffix(f".damaged-{number}")).exists():
            number += 1
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            self.path.replace(aside)
        for companion in ("-wal", "-shm"):
            self.path.with_name(f"{self.path.name}{companion}").unlink(missing_ok=True)
        errors.print(f"{self.path}: damaged ({error}); moved to {aside.name}, what it held is computed again")


class Table(MutableMapping[str, bytes]):
    """Hex digest -> bytes. `read` and `write` take many at once."""

    def __init__(self, database: Database, name: str) -> None:
        self.database, self.name = database, name

    def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Those of the keys that are there, whole."""
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), AT_ONCE):
            part = [bytes.fromhex(key) for key in keys[start : start + AT_ONCE]]
            wanted = ",".join("?" * len(part))
            rows = self.database.execute(f"SELECT key, value FROM {self.name} WHERE key IN ({wanted})", part)
            found |= {key.hex(): value[CHECK:] for key, value in rows if value[:CHECK] == _check(key, value[CHECK:])}
        return found

    def write(self, items: Mapping[str, bytes]) -> None:
        """Add or replace, all or nothing."""
        pairs = ((bytes.fromhex(key), value) for key, value in items.items())
        rows = [(key, _check(key, value) + value) for key, value in pairs]
        self.database.execute_each(f"INSERT OR REPLACE INTO {self.name} VALUES (?, ?)", rows)

    def __getitem__(self, key: str) -> bytes:
        return self.read([key])[key]

    def __setitem__(self, key: str, value: bytes) -> None:
        self.write({key: value})

    def __delitem__(self, key: str) -> None:
        self[key]  # raises KeyError
        self.database.execute(f"DELETE FROM {self.name} WHERE key = ?", [bytes.fromhex(key)])

    def __iter__(self) -> Iterator[str]:
        return iter([key.hex() for (key,) in self.database.execute(f"SELECT key FROM {self.name}")])

    def __len__(self) -> int:
        return sum(count for (count,) in self.database.execute(f"SELECT count(*) FROM {self.name}"))


def _connect(path: Path, tables: Iterable[str]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=WAIT, check_same_thread=False)  # a lock keeps threads apart
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")  # a power cut may cost the last writes, nothing else
        for name in tables:
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {name} (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
            )
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def _check(key: bytes, value: bytes) -> bytes:
    return hashlib.sha256(key + value).digest()[:CHECK]
