"""Submission files of ImageCLEFmedical Caption: what the organisers' programs reject or cut, and a file they take.

The rules are those of github.com/taubsity/clef-caption-evaluation-2026 (9966c13: submission_check.py, evaluator.py) and
github.com/taubsity/clef-caption-evaluation (evaluator.py; 2025: ce13086, 2023: 720c808, read as it was meant).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Format = Literal["imageclef2026", "imageclef2025", "imageclef2023"]

HEADER = ["ID", "Caption"]
BOM = "\ufeff"
LINE_BREAK = re.compile("\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")  # where str.splitlines cuts
NAMED = 5  # ids without a row that a message names


@dataclass(frozen=True, order=True)
class Violation:
    """What is wrong in which line, counted from 1."""

    line: int
    text: str


@dataclass(frozen=True)
class Checked:
    """How many rows there are below the header, how many of their captions are empty, and all that is wrong."""

    rows: int
    empty: int
    violations: list[Violation]


@dataclass(frozen=True)
class Row:
    """A row as the csv module reads it, and the first of its lines."""

    line: int
    cells: list[str]  # none for an empty line


def check(content: bytes, ids: Sequence[str] | None, form: Format, *, ordered: bool = True) -> Checked:
    """Every reason for an edition's program to reject a file or to read less of a caption than was meant.

    ids: those of the ground truth, None where they are not known; ordered: whether their order is known, too.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return Checked(0, 0, [Violation(line, f"expected UTF-8, got another encoding at byte {error.start}")])
    rows, found = _read(text.removeprefix(BOM))
    header, body = _parted(rows, set(ids or ()), form)
    found += [*_header(text, header, form), *_blank(text, body, form)]
    body = [row for row in body if row.cells]
    if not body:
        found.append(Violation(1, "no row with a caption"))
    found += [*_cells(body, form), *_ids(body, ids, ordered=ordered and form == "imageclef2026")]
    if form == "imageclef2026":
        found += _unquoted(text, rows)
    return Checked(len(body), sum(row.cells[1:2] == [""] for row in body), sorted(set(found)))


def compose(captions: Iterable[tuple[str, str]], form: Format) -> str:
    """The text of a submission file: every caption in double quotes."""
    rows = (f"{_quoted_id(name)},{_quoted(one_line(caption, form))}" for name, caption in captions)
    return "".join(f"{row}\n" for row in (",".join(HEADER), *rows))


def one_line(caption: str, form: Format) -> str:
    """For 2026 each line break becomes a blank: that program goes through the file line by line, quoted or not."""
    return LINE_BREAK.sub(" ", caption) if form == "imageclef2026" else caption


# ---------------------------------------------------------------- reading


def _read(text: str) -> tuple[list[Row], list[Violation]]:
    """All rows up to one that is no csv."""
    reader = csv.reader(io.StringIO(text, newline=""))
    rows: list[Row] = []
    while True:
        line = reader.line_num + 1
        try:
            rows.append(Row(line, next(reader)))
        except StopIteration:
            return rows, []
        except csv.Error as error:
            return rows, [Violation(line, f"cannot be read as csv: {error}")]


def _parted(rows: list[Row], known: set[str], form: Format) -> tuple[Row | None, list[Row]]:
    """The header, None where the first row is data, and the other rows."""
    first = rows[0].cells[:1] if rows else []
    data = "ID" not in "".join(first) if form == "imageclef2023" else not known.isdisjoint(first)
    return (None, rows) if data or not rows else (rows[0], rows[1:])


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def _quoted_id(name: str) -> str:
    return _quoted(name) if re.search('[",\r\n]', name) else name


# ---------------------------------------------------------------- rules


def _header(text: str, header: Row | None, form: Format) -> Iterator[Violation]:
    if form == "imageclef2023":  # optional, and its mark, "ID" anywhere in the first cell, is found behind the bytes
        return
    if text.startswith(BOM):
        yield Violation(1, "a byte order mark before the header; save the file as UTF-8 without it")
    cells = header.cells if header else []
    right = cells == HEADER if form == "imageclef2026" else [cell.lower() for cell in cells[:1]] == ["id"]
    if not right:
        yield Violation(1, f"expected the header {','.join(HEADER)}, got {','.join(cells) if header else 'none'!r}")


def _blank(text: str, body: Sequence[Row], form: Format) -> Iterator[Violation]:
    """2026 takes none, not even inside a quoted caption."""
    if form == "imageclef2026":
        lines = [number for number, line in enumerate(text.splitlines(), start=1) if number > 1 and not line.strip()]
    else:
        lines = [row.line for row in body if not row.cells]
    for number in lines:
        yield Violation(number, "a blank line")


def _cells(body: Sequence[Row], form: Format) -> Iterator[Violation]:
    for row in body:
        count = len(row.cells)
        if count < 2:
            yield Violation(row.line, "expected an id and a caption, got one cell")
        elif count > 2 and form == "imageclef2026":
            yield Violation(row.line, f"expected 2 cells, got {count}; a caption with a comma must be in double quotes")
        elif count > 2:
            yield Violation(row.line, f"the caption is cut before {row.cells[2]!r}: put a caption in double quotes")
        if form == "imageclef2023" and "ID" in row.cells[0]:
            yield Violation(row.line, f"the id {row.cells[0]!r} has 'ID' in it: the row is taken for a header")


def _unquoted(text: str, rows: Sequence[Row]) -> Iterator[Violation]:
    """The line of the same number as a row: behind its first comma, more commas need quotes round all of the rest."""
    for (number, line), row in zip(enumerate(text.splitlines()[1:], start=2), rows[1:], strict=False):
        rest = line.partition(",")[2]
        if "," not in rest or (rest.startswith('"') and rest.endswith('"')):
            continue
        if row.line != number:
            yield Violation(
                number, "after a line break in a caption this line is taken for a row, with commas outside quotes"
            )
        elif len(row.cells) == 2:
            yield Violation(number, "a caption with a comma must be in double quotes from its first character on")


def _ids(body: Sequence[Row], ids: Sequence[str] | None, *, ordered: bool) -> Iterator[Violation]:
    known = set(ids or ())
    seen: dict[str, int] = {}
    for row in body:
        name = row.cells[0].strip()
        if name != row.cells[0]:
            yield Violation(row.line, f"blanks round the id {name!r}")
        if name in seen:
            yield Violation(row.line, f"the id {name!r} was there before, in line {seen[name]}")
        elif ids is not None and name not in known:
            yield Violation(row.line, f"the id {name!r} is not one of the ground truth")
        seen.setdefault(name, row.line)
    missing = [name for name in ids or () if name not in seen]
    if missing:
        named = ", ".join(map(repr, missing[:NAMED])) + (", ..." if len(missing) > NAMED else "")
        yield Violation(body[-1].line if body else 1, f"{len(missing)} ids have no row up to the end: {named}")
    if ordered:
        yield from _order(ids or (), {name: line for name, line in seen.items() if name in known})


def _order(ids: Sequence[str], lines: dict[str, int]) -> Iterator[Violation]:
    """The first row that is not where the ground truth has it; those behind it follow from it."""
    for expected, name in zip((name for name in ids if name in lines), lines, strict=True):
        if expected != name:
            yield Violation(
                lines[name], f"expected the id {expected!r}, got {name!r}: the ids must be in the ground truth's order"
            )
            return
