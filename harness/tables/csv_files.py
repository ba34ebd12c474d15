"""Csv files as the tables are written: 6 significant digits, no cell that a spreadsheet would run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from harness.store import csv_text, write_text
from harness.store.scores import Array

TEXT_COLUMNS = {"caption", "caption_a", "caption_b", "reference", "error", "id"}
FORMULA_START = ("=", "+", "-", "@", "\t", "\r")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """UTF-8 csv, 6 significant digits, texts that a spreadsheet would run as a formula neutralised."""
    cells = [csv_cells(str(name), table[name]) for name in table]
    write_text(path, csv_text(table.columns, zip(*cells, strict=True)))


def csv_cells(name: str, column: pd.Series[Any]) -> list[Any]:
    """A column as it stands in a csv file; nothing where there is no value."""
    if pd.api.types.is_float_dtype(column):
        return number_cells(column.to_numpy(float))
    return text_cells(name, column.astype(object).where(column.notna(), None).tolist())


def number_cells(values: Array) -> list[str]:
    """6 significant digits; empty for NaN."""
    return [f"{value:.6g}" if value == value else "" for value in values.tolist()]


def text_cells(name: str, cells: list[Any]) -> list[Any]:
    """As they are, which is empty for None; where people write what they want, as no spreadsheet runs it."""
    if name not in TEXT_COLUMNS:
        return cells
    return [f"'{c}" if isinstance(c, str) and c.startswith(FORMULA_START) else c for c in cells]
