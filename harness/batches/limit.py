"""Limits: how many rows fit into memory at once, learned from failures and remembered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.contracts import CapBenchError
from harness.machine.terminal import errors
from harness.store import SHORT, Damaged, digest, read_json, write_json


class DoesNotFit(CapBenchError):
    """Not even one row fits into memory."""


class Limit:
    """How many rows fit into memory at once, learned from failures. One small file per thing it depends on.

    Without a folder it is remembered as long as the object lives. Deleting the file forgets it, for example when the
    memory was short because of another program.
    """

    def __init__(self, folder: Path | None = None, about: Mapping[str, Any] | None = None) -> None:
        self.about = dict(about or {})
        self.path = folder / f"rows-{digest(self.about)[:SHORT]}.json" if folder else None
        self.rows = self._known()

    def of(self, asked: int) -> int:
        """As many rows as were asked for, or as fit. Raises Damaged when the file cannot be read."""
        return min(asked, self.rows or asked)

    def lower(self, failed: int, what: str) -> int:
        """Half of the rows that did not fit, from now on. Raises DoesNotFit, naming `what`, where there is no half."""
        if failed == 1:
            raise DoesNotFit(
                f"{what}: out of memory with one row at once; use a device with more memory, fewer weights "
                "(model.dtype=nf4) or shorter texts (generate.max_new_tokens, train.max_caption_tokens)"
            )
        self.rows = min(self.rows or failed, failed // 2)
        return self.rows

    def keep(self) -> None:
        """Say so, and write it down for later runs."""
        where = f" (remembered in {self.path}: delete it to try more again)" if self.path else ""
        errors.print(f"out of memory: from now on {self.rows} rows at once{where}")
        if self.path and self.rows:
            note = "the most rows that fitted into memory at once; delete this file to try more again"
            write_json(self.path, {"rows": self.rows, "note": note, "about": self.about})

    def _known(self) -> int | None:
        if self.path is None or not self.path.is_file():
            return None
        known = read_json(self.path)
        if not isinstance(known, dict) or not isinstance(known.get("rows"), int) or known["rows"] < 1:
            raise Damaged(f"{self.path}: expected the rows that fit into memory, got other JSON; delete the file")
        rows: int = known["rows"]
        return rows
