"""The journal of a run: captions batch by batch, each row with a checksum."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.store.files import Damaged, write_text
from harness.store.identity import digest

LINE_BREAKS = {ord(c): f"\\u{ord(c):04x}" for c in "\x85\u2028\u2029"}  # legal in JSON, line ends to many readers


class Journal:
    """Rows appended batch by batch, each with a checksum: what a killed process had finished stays finished.

    One JSON object a line; its last key, `check`, holds the first 8 hex digits of the sha256 of the rest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[dict[str, Any]]:
        """All whole rows. A torn last line is left out; damage before it raises Damaged with the line's number."""
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")
        bodies = []
        for number, line in enumerate(lines[:-1], start=1):
            body = _checked(line)
            if body is None:
                raise Damaged(
                    f"{self.path} line {number}: the checksum does not fit, the row was edited or damaged; "
                    "delete the line and repeat the command to make it again"
                )
            bodies.append(body)
        rows: list[dict[str, Any]] = json.loads(b"[" + b",".join(bodies) + b"]")  # one call: three times as fast
        return rows

    def latest(self) -> list[dict[str, Any]]:
        """One row per `id`, the last one, in the order in which the ids first came. Raises Damaged."""
        return list({row["id"]: row for row in self.rows()}.values())

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows and wait until they are on the disk."""
        self._drop_torn_line()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(b"".join(_line(row) for row in rows))
            file.flush()
            os.fsync(file.fileno())

    def put_in_order(self, ids: Sequence[str]) -> None:
        """Sort the rows like `ids`, those of one id by age and others to the end; in one step, or not at all."""
        rows, place = self.rows(), {id_: number for number, id_ in enumerate(ids)}
        sorted_ = sorted(rows, key=lambda row: place.get(row["id"], len(place)))
        if sorted_ != rows:
            write_text(self.path, b"".join(_line(row) for row in sorted_).decode())

    def _drop_torn_line(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb+") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole != len(content):
                file.truncate(whole)


def texts_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """Hex digest of what a text metric sees of a run."""
    return digest([[row["id"], row["reference"], row["caption"]] for row in rows])


def _line(row: Mapping[str, Any]) -> bytes:
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    text = text.translate(LINE_BREAKS)
    check = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f'{text[:-1]}{", " if row else ""}"check": "{check}"}}\n'.encode()


def _checked(line: bytes) -> bytes | None:
    """The JSON object that was written, None where it is not."""
    head, mark, tail = line.rpartition(b'"check": "')
    if not mark or len(tail) != 10:
        return None
    body = head.removesuffix(b", ") + b"}"
    if hashlib.sha256(body).hexdigest()[:8].encode() != tail[:8]:
        return None
    return body
