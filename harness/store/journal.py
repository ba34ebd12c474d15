"""The journal of a run: captions batch by batch, each row with a checksum."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.contracts import UNKNOWN, Generated, Query
from harness.store.files import Damaged, write_text
from harness.store.identity import digest

LINE_BREAKS = {ord(c): f"\\u{ord(c):04x}" for c in "\x85\u2028\u2029"}  # legal in JSON, line ends to many readers


@dataclass(frozen=True, init=False, eq=False, repr=False)
class JournalRow:
    """One row of a journal: what was said of a sample, and what scoring and tables need, so that they need no dataset.

    Its attributes are the keys of the JSON object: reading a row makes no copy, and keys of later versions, or of
    controls (the neighbour), stay where they stood. A key that a row lacks has the default.
    """

    id: str
    status: Literal["ok", "failed"]
    caption: str | None
    reference: str
    prompt: str
    seconds: float
    tokens: int
    truncated: bool
    error: str | None = None
    label: str | None = None
    modality: str = UNKNOWN
    concepts: Sequence[str] | None = None
    duplicate: bool | None = None

    def __init__(self, values: dict[str, Any]) -> None:
        object.__setattr__(self, "__dict__", values)

    @classmethod
    def ok(cls, query: Query, made: Generated, facts: Mapping[str, Any] | None = None) -> JournalRow:
        """A caption; facts: what more a control knows of it."""
        said = {"caption": made.caption, "tokens": made.tokens, "truncated": made.truncated, **(facts or {})}
        return cls({"id": query.sample.id, "status": "ok", **said, **_asked(query)})

    @classmethod
    def failed(cls, query: Query, reason: str) -> JournalRow:
        """No caption, and why."""
        return cls({"id": query.sample.id, "status": "failed", "caption": None, "error": reason, **_asked(query)})

    @classmethod
    def of_texts(cls, name: str, reference: str, caption: str | None, error: str = "no caption") -> JournalRow:
        """A row that no journal holds: of a file of captions."""
        said = {"status": "failed", "error": error} if caption is None else {"status": "ok"}
        return cls({"id": name, "reference": reference, "caption": caption, **said})

    def taking(self, seconds: float) -> JournalRow:
        """The same with what it took."""
        return JournalRow({**vars(self), "seconds": round(seconds, 6)})

    def __eq__(self, other: object) -> bool:
        """Of the same JSON object."""
        return isinstance(other, JournalRow) and vars(self) == vars(other)

    def __repr__(self) -> str:
        """Every key."""
        return f"JournalRow({vars(self)})"


def _asked(query: Query) -> dict[str, Any]:
    sample = query.sample
    label = {} if query.label is None else {"label": query.label}
    known = {"reference": sample.caption, "modality": sample.modality, "concepts": list(sample.concepts)}
    return {"prompt": query.prompt, **label, **known}


class Journal:
    """Rows appended batch by batch, each with a checksum: what a killed process had finished stays finished.

    One JSON object a line; its last key, `check`, holds the first 8 hex digits of the sha256 of the rest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[JournalRow]:
        """All whole rows. A torn last line is left out; damage before it raises Damaged with the line's number."""
        if not self.path.exists():
            return []
        bodies = [_checked(line) for line in self.path.read_bytes().split(b"\n")[:-1]]
        if b"" in bodies:
            raise Damaged(
                f"{self.path} line {bodies.index(b'') + 1}: the checksum does not fit, the row was edited or damaged; "
                "delete the line and repeat the command to make it again"
            )
        objects = json.loads(b"[" + b",".join(bodies) + b"]")  # one call: three times as fast
        return list(map(JournalRow, objects))

    def latest(self) -> list[JournalRow]:
        """One row per `id`, the last one, in the order in which the ids first came. Raises Damaged."""
        return list({row.id: row for row in self.rows()}.values())

    def append(self, rows: Iterable[JournalRow]) -> None:
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
        sorted_ = sorted(rows, key=lambda row: place.get(row.id, len(place)))
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


def texts_digest(rows: Iterable[JournalRow]) -> str:
    """Hex digest of what a text metric sees of a run."""
    return digest([[row.id, row.reference, row.caption] for row in rows])


def _line(row: JournalRow) -> bytes:
    text = json.dumps(vars(row), ensure_ascii=False, allow_nan=False)
    text = text.translate(LINE_BREAKS)
    check = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f'{text[:-1]}{", " if vars(row) else ""}"check": "{check}"}}\n'.encode()


def _checked(line: bytes) -> bytes:
    """The JSON object that was written; empty where the line is another one."""
    body = line[:-20].removesuffix(b", ") + b"}"
    check = hashlib.sha256(body).hexdigest()[:8].encode()
    return body if line[-20:-2] == b'"check": "' + check else b""
