"""Lines of CSV and TSV files, and which column holds what: one sniffer for every form of ROCOv2 and ImageCLEF."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.contracts import RequestError

Line = tuple[int, list[str]]


@dataclass(frozen=True)
class Header:
    """The columns by position or name; None for one that the file lacks."""

    id: int
    caption: int | None
    concepts: int | None


def sniff(path: Path, columns: Sequence[str], *needed: str) -> Header:
    """The id is the first column that ends in "id". Raises RequestError that shows the header when one is missing."""
    names = [name.strip().lower() for name in columns]
    found = {
        "id": next((k for k, name in enumerate(names) if name.endswith("id")), None),
        "caption": next((k for k, name in enumerate(names) if name == "caption"), None),
        "concepts": next((k for k, name in enumerate(names) if name in ("cuis", "cui")), None),
    }
    for kind in ("id", *needed):
        if found[kind] is None:
            expected = {"id": "ending in 'ID'", "caption": "named 'Caption'", "concepts": "named 'CUIs' or 'CUI'"}[kind]
            raise RequestError(f"{path}: expected a column {expected}, found {', '.join(columns) or 'no header'}")
    assert found["id"] is not None
    return Header(found["id"], found["caption"], found["concepts"])


def read_text(path: Path) -> str:
    """UTF-8, with or without byte order mark."""
    try:
        return path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        found = f"byte {error.start} (0x{error.object[error.start]:02x}) is not"
        raise RequestError(f"{path}: expected UTF-8 text, but {found}; save it as UTF-8") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from error


def read_lines(path: Path) -> tuple[tuple[str, ...], str, Iterator[Line]]:
    """Column names, delimiter and the lines below: tab-separated where the first line holds a tab, else by commas."""
    text = read_text(path)
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines = csv_lines(path, reader)
    columns = tuple(name.strip() for name in next(lines, (0, [""]))[1])
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise RequestError(f"{path}: column {twice[0]!r} appears twice; give each column its own name")
    return columns, delimiter, lines


def csv_lines(path: Path, reader: Any) -> Iterator[Line]:
    """Cells with the line they start in; blank lines are no rows. Raises RequestError on broken quotes."""
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        advice = 'a cell with quotes needs quotes around it, and its own doubled: "a ""b"" c"'
        raise RequestError(f"{path}, line {line}: {error}; {advice}") from error


def wrong_length(columns: Sequence[str], cells: Sequence[str], delimiter: str) -> str:
    """Why a line has another number of cells than the header; "" when it has not."""
    if len(cells) == len(columns):
        return ""
    hint = "; a caption with commas needs double quotes" if delimiter == "," else ""
    return f"expected {len(columns)} cells as in the header, got {len(cells)}{hint}"
