"""The cache of a results folder: what was computed once from the same content. It may be deleted."""

from __future__ import annotations

from pathlib import Path

from harness.store.database import Database

FILE = "cache.sqlite"


class Cache:
    """Scores of pairs, features of texts and pictures, numbers in files, each in a table of one SQLite file."""

    def __init__(self, folder: Path) -> None:
        self._database = Database(folder / FILE, "scores", "features", "files")
        self.scores, self.features, self.files = self._database.tables.values()

    def close(self) -> None:
        """Give the file up; a later use opens it again."""
        self._database.close()
