"""Pictures inside Parquet files, read when asked for: such files hold gigabytes of pictures."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from harness.contracts import ImageError
from harness.imaging.files import StoredImage

_one_reader = threading.Lock()
"""Two threads that ask for the same row group read it once."""


@dataclass(frozen=True, slots=True)
class ParquetImage(StoredImage):
    """A picture in a row of a row group."""

    path: Path
    column: str
    group: int
    offset: int

    @property
    def place(self) -> tuple[str | Path, str]:
        """The file, and the cell in it."""
        return self.path, f"{self.column}\0{self.group}\0{self.offset}"

    def open(self) -> BinaryIO:
        """The encoded bytes. Raises ImageError."""
        with _one_reader:
            cell = encoded_column(self.path, self.column, self.group)[self.offset].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not data:
            raise ImageError("no image: the cell is empty")
        return io.BytesIO(data)


@lru_cache(maxsize=2)
def encoded_column(path: Path, column: str, group: int) -> pa.ChunkedArray:
    """The pictures of one row group. Neighbours are asked for one after the other, so few groups are kept."""
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            return file.read_row_group(group, columns=[column], use_threads=False).column(column)
    except (pa.ArrowException, OSError) as error:
        raise ImageError(f"Parquet row group {group} cannot be read: {error}") from error


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds encoded pictures: plain bytes, or a struct with `bytes` as Hugging Face writes it."""
    if pa.types.is_struct(kind):
        return any(kind.field(index).name == "bytes" for index in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
