"""Rows of CSV, TSV, JSON Lines and Parquet files, each with its line number."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.contracts import RequestError
from harness.datasets._csv import read_lines, read_text, wrong_length
from harness.imaging.parquet import ParquetImage, holds_bytes

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class TableRow:
    """One row. `line` is where it starts in the file, for Parquet its number; `fault` says why it has no cells."""

    line: int
    cells: dict[str, Any]
    fault: str = ""


@dataclass(frozen=True)
class TableRows:
    """The columns of a table and its rows."""

    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]


def read_rows(path: Path) -> TableRows:
    """All rows of a table file. Raises RequestError for a file that cannot be read as what its name says."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise RequestError(f"dataset.path={path}: expected a file ending in {', '.join(SUFFIXES)}, got {suffix!r}")
    if not path.is_file():
        raise RequestError(f"dataset.path={path}: no such file; give the path of a table, relative to this folder")
    if suffix == ".parquet":
        return read_parquet(path)
    return read_jsonl(path, read_text(path)) if suffix == ".jsonl" else read_csv(path)


def read_csv(path: Path) -> TableRows:
    """Comma-separated, or tab-separated where the first line holds a tab."""
    columns, delimiter, lines = read_lines(path)
    rows = []
    for line, cells in lines:
        fault = wrong_length(columns, cells, delimiter)
        rows.append(TableRow(line, {} if fault else dict(zip(columns, cells, strict=True)), fault))
    return TableRows(columns, tuple(rows))


def read_jsonl(path: Path, text: str) -> TableRows:
    """One JSON object per line; blank lines are no rows."""
    rows = []
    columns: dict[str, None] = {}
    for line, content in enumerate(text.split("\n"), start=1):  # not splitlines: captions may hold U+2028
        if not content.strip():
            continue
        try:
            cells = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"dataset.path={path}, line {line}: expected one JSON object, got {error}") from None
        if not isinstance(cells, dict):
            kind = type(cells).__name__
            raise RequestError(f"dataset.path={path}, line {line}: expected a JSON object, got a {kind}")
        columns.update(dict.fromkeys(cells))
        rows.append(TableRow(line, cells))
    return TableRows(tuple(columns), tuple(rows))


def read_parquet(path: Path) -> TableRows:
    """Everything but embedded pictures, in whose place a ParquetImage stands."""
    try:
        file = pq.ParquetFile(path, memory_map=True)
        embedded = [field.name for field in file.schema_arrow if holds_bytes(field.type)]
        columns = tuple(file.schema_arrow.names)
        rows: list[TableRow] = []
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=[name for name in columns if name not in embedded])
            for offset, cells in enumerate(table.to_pylist()):
                pictures = {name: ParquetImage(path, name, group, offset) for name in embedded}
                rows.append(TableRow(len(rows) + 1, cells | pictures))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RequestError(f"dataset.path={path}: expected a Parquet file, got {error}") from error
    return TableRows(columns, tuple(rows))
