"""Part of a leaderboard: which rows are shown, in which order. Ranks and intervals stay those of the whole table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import pandas as pd

from harness.choices import meant
from harness.contracts import RequestError
from harness.tables.boards import Board
from harness.tables.columns import ROW_COLUMNS
from harness.tables.labels import row_name

ASCENDING = {"rank", "rank_low", "rank_high", "params_trained_pct", "peak_memory_bytes"}  # less is better


@dataclass(frozen=True)
class View:
    """Names or globs, by commas, of the rows to show; the column to sort by; the column of which to show the best."""

    model: str | None = None
    strategy: str | None = None
    prompt: str | None = None
    modality: str | None = None
    sort: str | None = None
    group: str | None = None

    @property
    def words(self) -> str:
        """The request as it was typed; empty when all rows are asked for as they are."""
        return " ".join(f"{name}={value}" for name, value in vars(self).items() if value is not None)


def seen(board: Board, view: View) -> Board:
    """The board with the rows of a view. Raises RequestError on a name or a column that the table does not have."""
    table = board.table
    for name in ROW_COLUMNS:
        if getattr(view, name) is not None:
            table = table[table.index.isin(_fitting(board.table, name, getattr(view, name)))]
    if table.empty:
        rows = map(row_name, board.table[list(ROW_COLUMNS)].head(10).itertuples(index=False))
        raise RequestError(f"{view.words}: no row of the table fits all of it; there are {', '.join(rows)}")
    if view.group is not None:
        column = _column(table, "group", view.group)
        table = table.drop_duplicates(column, keep="first")  # the table is in the order of the ranks
    if view.sort is not None:
        column = _column(table, "sort", view.sort)
        ascending = _least_first(column, board) or not pd.api.types.is_numeric_dtype(table[column])
        table = table.sort_values(column, ascending=ascending, kind="stable")
    return replace(board, table=table.reset_index(drop=True))


def _least_first(column: str, board: Board) -> bool:
    """Whether less is better in a column; the bounds of an interval are of its column."""
    return column in ASCENDING or column.removesuffix("_ci_low").removesuffix("_ci_high") in board.lower


def _fitting(table: pd.DataFrame, column: str, wanted: str) -> pd.Index:
    """The rows with one of the names. A name also stands for its variants: targeted for targeted[lora.rank=4]."""
    patterns = [word.strip() for word in re.split(r",(?![^\[]*\])", wanted) if word.strip()]
    chosen = pd.Series(data=False, index=table.index)
    for pattern in patterns:
        fits = table[column].map(
            lambda name, p=pattern: p in _names(name) or any(fnmatchcase(n, p) for n in _names(name))
        )
        if not fits.any():
            known = sorted(set(table[column].astype(str)))
            expected = f"expected one of {', '.join(known)}{meant(pattern, known)}"
            raise RequestError(f"{column}={pattern}: no row of the table has it; {expected}")
        chosen |= fits
    return table.index[chosen]


def _names(name: object) -> Sequence[str]:
    return (str(name), str(name).partition("[")[0])


def _column(table: pd.DataFrame, setting: str, name: str) -> str:
    if name not in table:
        known = [str(column) for column in table.columns]
        raise RequestError(f"{setting}={name}: expected a column of the table: {', '.join(known)}{meant(name, known)}")
    return name
