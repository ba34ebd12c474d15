"""The cache of a results folder: what was computed once from the same content. It may be deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path

from harness.store.database import Database

FILE = "cache.sqlite"


class Cache:
    """Scores of pairs, features of texts and pictures, numbers in files, each in a table of one SQLite file."""

    def __init__(self, folder: Path) -> None:
        self._database = Database(folder / FILE, "scores", "features", "files")
        self.scores, self.features, self.files = (Table(self._database, name) for name in self._database.tables)

    def close(self) -> None:
        """Give the file up; a later use opens it again."""
        self._database.close()


class Table(MutableMapping[str, bytes]):
    """Hex digest -> bytes. `read` and `write` take many at once."""

    def __init__(self, database: Database, name: str) -> None:
        self.database, self.name = database, name

    def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Those of the keys that are there, whole."""
        found = self.database.read(self.name, [bytes.fromhex(key) for key in keys])
        return {key.hex(): value for key, value in found.items()}

    def write(self, items: Mapping[str, bytes]) -> None:
        """Add or replace, all or nothing."""
        self.database.write(self.name, {bytes.fromhex(key): value for key, value in items.items()})

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
