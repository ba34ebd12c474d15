"""What a report is made from: one leaderboard, its runs, and the tables that stand beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.choices import first_comment
from harness.store import JournalRow
from harness.store.runs import Run
from harness.store.scores import Array
from harness.tables.boards import Board, BoardKey
from harness.tables.columns import BOARD_COLUMNS, ROW_COLUMNS
from harness.tables.labels import BLANK, row_name

BESIDE = ("significance", "agreement", "subgroups", "ablation", "controls")
"""Tables of a results folder that the page shows where they are there."""
TEXTS = (
    *BOARD_COLUMNS, *ROW_COLUMNS, "metric", "metric_a", "metric_b", "row", "row_a", "row_b", "by", "group", "family",
    "level", "control",
)  # fmt: skip
"""Columns of names, which stay text whatever they look like."""
GAIN = "gain_"  # columns of what a row has over a control


@dataclass(frozen=True)
class Study:
    """A board with the rows of the tables beside it that are about it; a table without any is left out."""

    board: Board
    tables: Mapping[str, pd.DataFrame]

    @property
    def primary(self) -> str:
        """The column that ranks; where it has no values, the first column that all ranked rows have."""
        wanted = self.board.primary
        known = self.board.ranked.columns if self.board.ranked else self.measures
        return wanted if wanted in known else next((name for name in self.measures if name in known), wanted)

    @cached_property
    def measures(self) -> tuple[str, ...]:
        """Columns with values: the one that ranks, the averages, those of the protocol in its order, further ones."""
        further = (name for run in self.board.runs for name in self.columns_of(run))
        known = dict.fromkeys((*self.board.headlines, *self.board.protocol["columns"], *further))
        table = self.board.table
        return tuple(name for name in known if name in table and table[name].notna().any())

    def columns_of(self, run: Run) -> Mapping[str, Any]:
        """The columns of this protocol as they were recorded for a run."""
        found: Mapping[str, Any] = run.protocols.get(self.board.key.protocol, {}).get("columns", {})
        return found

    def beside(self, name: str, **cells: str) -> pd.DataFrame:
        """The rows of a table beside the board that have these cells; none where it is not there."""
        return with_cells(self.tables[name], cells) if name in self.tables else pd.DataFrame()

    @cached_property
    def meanings(self) -> dict[str, str]:
        """What the columns say, in words: averages by their parts, the others as their metric's file in conf says."""
        protocol, found = self.board.protocol, {}
        for name in self.measures:
            if name in protocol["averages"]:
                *parts, last = protocol["averages"][name]
                found[name] = f"mean of {', '.join(parts)} and {last}" if parts else f"the same as {last}"
            else:
                metric = str(protocol["columns"].get(name, {}).get("metric", name))
                found[name] = first_comment("metric", metric) or f"by the metric {metric}"
            found[name] += "; ranks the rows" if name == self.board.primary else ""
        return found

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the board in its order, each with its `name`, `label` and `control`, empty for a captioner."""
        return [self._row(row) for row in self.board.table.to_dict("records")]

    def _row(self, cells: Mapping[Any, Any]) -> dict[str, Any]:
        name = row_name(cells[column] for column in ROW_COLUMNS)
        control = str(cells["control"]) if given(cells["control"]) else ""
        return {**cells, "name": name, "label": self.label(name) + blank_words(control), "control": control}

    @property
    def ranked(self) -> list[dict[str, Any]]:
        """Rows with a rank, the best first."""
        return [row for row in self.rows if given(row["rank"]) and not row["control"]]

    @property
    def several(self) -> bool:
        """Whether a model has several rows."""
        return len({row["model"] for row in self.rows}) < len(self.rows)

    @cached_property
    def captioners(self) -> pd.DataFrame:
        """The board without its controls; whole where there is nothing else."""
        table = self.board.table
        own = table[~table["control"].map(given)]
        return own if len(own) else table

    @cached_property
    def _labels(self) -> dict[str, str]:
        shown = [c for c in ROW_COLUMNS if c == ROW_COLUMNS[0] or self.captioners[c].nunique() > 1]
        rows = self.board.table.to_dict("records")
        return {row_name(row[c] for c in ROW_COLUMNS): " · ".join(str(row[c]) for c in shown) for row in rows}

    def label(self, name: str) -> str:
        """A row's name without what all rows have in common."""
        return self._labels.get(name, name)

    @cached_property
    def _members(self) -> dict[tuple[str, str], list[Run]]:
        """(row name, control) -> its runs, by seed. A captioner and itself on blank pictures have one name."""
        return {(one.name, one.control): sorted(one.runs, key=_seed) for one in self.board.variants}

    def members(self, row: Mapping[str, Any]) -> list[Run]:
        """The runs of a row, by seed."""
        return self._members.get((row["name"], row["control"]), [])

    def scored(self, row: Mapping[str, Any]) -> list[Run]:
        """Those that have captions and scores under this protocol."""
        protocol = self.board.key.protocol
        return [run for run in self.members(row) if run.status != "failed" and protocol in run.protocols]

    @cached_property
    def called(self) -> dict[Path, str]:
        """Folder of a run -> what its row is called."""
        return {
            run.folder: self.label(name) + blank_words(control)
            for (name, control), runs in self._members.items()
            for run in runs
        }

    @cached_property
    def samples(self) -> list[JournalRow]:
        """id, modality, reference, concepts of every sample, as the newest ranked run has them."""
        run = self.board.ranked.newest if self.board.ranked else None
        return run.read() if run else []

    def values(self, column: str) -> Array:
        """Values of each sample of the ranked rows [rows, samples], NaN for samples that not all of them have."""
        ranked = self.board.ranked
        assert ranked is not None, "asked for where rows are ranked"
        values = np.full((len(ranked.rows), len(ranked.used)), np.nan)
        values[:, ranked.used] = ranked.own[:, :, ranked.columns.index(column)]
        return values


def read_tables(results: Path, key: BoardKey) -> dict[str, pd.DataFrame]:
    """The rows about a board of each table that is there."""
    paths = {name: results / f"{name}.csv" for name in BESIDE}
    found = {name: with_cells(read_table(path), key.cells) for name, path in paths.items() if path.is_file()}
    return {name: table for name, table in found.items() if len(table)}


def read_table(path: Path) -> pd.DataFrame:
    """A table of the results folder."""
    return pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=[""])


def with_cells(table: pd.DataFrame, cells: Mapping[str, str]) -> pd.DataFrame:
    """The rows that have these values in these columns."""
    return table[(table[list(cells)] == pd.Series(cells)).all(axis=1)].reset_index(drop=True)


def given(value: Any) -> bool:
    """Whether a cell holds anything."""
    return value is not None and value == value and value != ""


def blank_words(control: str) -> str:
    """What is said behind the name of a captioner that sees blank pictures: it has the name of the one that sees."""
    return " (blank pictures)" if control == BLANK else ""


def _seed(run: Run) -> tuple[int, str]:
    seed = run.row.get("seed")
    return (int(seed) if isinstance(seed, int) else -1, run.folder.name)


def mean_of(runs: Sequence[Run], name: str) -> float | None:
    """The mean of a fact over the runs that know it."""
    found = [float(run.row[name]) for run in runs if given(run.row.get(name))]
    return sum(found) / len(found) if found else None
