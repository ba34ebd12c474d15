"""Rows of CSV, TSV, JSON Lines and Parquet files, each with its line number."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.contracts import ImageError, RequestError
from harness.datasets._images import BytesImage

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Row:
    """One row. `line` is where it starts in the file, for Parquet its number; `fault` says why it has no cells."""

    line: int
    cells: dict[str, Any]
    fault: str = ""


@dataclass(frozen=True)
class Rows:
    """The columns of a table and its rows."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class ParquetImage:
    """A picture inside a Parquet file, read when asked for: such files hold gigabytes of pictures."""

    path: Path
    column: str
    group: int
    offset: int

    def load(self) -> Image.Image:
        """The picture as 8-bit RGB. Raises ImageError."""
        return self._encoded().load()

    def digest(self) -> str:
        """Hex sha256 of the encoded bytes. Raises ImageError."""
        return self._encoded().digest()

    def modality(self) -> str:
        """What the bytes themselves say ("unknown" unless they are DICOM). Raises ImageError."""
        return self._encoded().modality()

    def _encoded(self) -> BytesImage:
        cell = encoded_column(self.path, self.column, self.group)[self.offset].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not data:
            raise ImageError("no image: the cell is empty")
        return BytesImage(data)


@lru_cache(maxsize=2)
def encoded_column(path: Path, column: str, group: int) -> pa.ChunkedArray:
    """The pictures of one row group. Neighbours are asked for one after the other, so few groups are kept."""
    try:
        return pq.ParquetFile(path, memory_map=True).read_row_group(group, columns=[column]).column(column)
    except (pa.ArrowException, OSError) as error:
        raise ImageError(f"Parquet row group {group} cannot be read: {error}") from error


def read_rows(path: Path) -> Rows:
    """All rows of a table file. Raises RequestError for a file that cannot be read as what its name says."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise RequestError(f"dataset.path={path}: expected a file ending in {', '.join(SUFFIXES)}, got {suffix!r}")
    if not path.is_file():
        raise RequestError(f"dataset.path={path}: no such file; give the path of a table, relative to this folder")
    if suffix == ".parquet":
        return read_parquet(path)
    text = read_text(path)
    return read_jsonl(path, text) if suffix == ".jsonl" else read_csv(path, text)


def read_text(path: Path) -> str:
    """UTF-8, with or without byte order mark."""
    try:
        return path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        found = f"byte {error.start} (0x{error.object[error.start]:02x}) is not"
        raise RequestError(f"dataset.path={path}: expected UTF-8 text, but {found}; save it as UTF-8") from None
    except OSError as error:
        raise RequestError(f"dataset.path={path}: cannot be read: {error.strerror}") from error


def read_csv(path: Path, text: str) -> Rows:
    """Comma-separated, or tab-separated where the first line holds a tab."""
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines = csv_lines(path, reader)
    columns = tuple(name.strip() for name in next(lines, (0, [""]))[1])
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise RequestError(f"dataset.path={path}: column {twice[0]!r} appears twice; give each column its own name")
    rows = []
    for line, cells in lines:
        if len(cells) == len(columns):
            rows.append(Row(line, dict(zip(columns, cells, strict=True))))
        else:
            hint = "; a caption with commas needs double quotes" if delimiter == "," else ""
            rows.append(Row(line, {}, f"expected {len(columns)} cells as in the header, got {len(cells)}{hint}"))
    return Rows(columns, tuple(rows))


def csv_lines(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Cells with the line they start in; blank lines are no rows. Raises RequestError on broken quotes."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            advice = 'a cell with quotes needs quotes around it, and its own doubled: "a ""b"" c"'
            raise RequestError(f"dataset.path={path}, line {line}: {error}; {advice}") from error
        if cells is None:
            return
        if cells:
            yield line, cells


def read_jsonl(path: Path, text: str) -> Rows:
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
        rows.append(Row(line, cells))
    return Rows(tuple(columns), tuple(rows))


def read_parquet(path: Path) -> Rows:
    """Everything but embedded pictures, in whose place a ParquetImage stands."""
    try:
        file = pq.ParquetFile(path, memory_map=True)
        embedded = [field.name for field in file.schema_arrow if holds_bytes(field.type)]
        columns = tuple(file.schema_arrow.names)
        rows: list[Row] = []
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=[name for name in columns if name not in embedded])
            for offset, cells in enumerate(table.to_pylist()):
                pictures = {name: ParquetImage(path, name, group, offset) for name in embedded}
                rows.append(Row(len(rows) + 1, cells | pictures))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RequestError(f"dataset.path={path}: expected a Parquet file, got {error}") from error
    return Rows(columns, tuple(rows))


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds encoded pictures: plain bytes, or a struct with `bytes` as Hugging Face writes it."""
    if pa.types.is_struct(kind):
        return any(kind.field(index).name == "bytes" for index in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
