"""What a report is made from: one leaderboard, its runs, and the tables that stand beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.store import JournalRow
from harness.store.runs import Run
from harness.store.scores import Array
from harness.tables.boards import Board, Group
from harness.tables.columns import AVERAGES, BOARD_COLUMNS, LEADERBOARD_COLUMNS, METRIC_COLUMNS, ROW_COLUMNS
from harness.tables.labels import labels, row_name

BESIDE = ("significance", "agreement", "subgroups", "ablation", "controls")
"""Tables of a results folder that the page shows where they are there."""
BLANK = "blank"  # the control that is a captioner on pictures without anything on them
GAIN = "gain_"  # columns of what a row has over a control


@dataclass(frozen=True)
class Study:
    """A board with the rows of the tables beside it that are about it; a table without any is left out."""

    board: Board
    tables: Mapping[str, pd.DataFrame]

    @cached_property
    def protocol(self) -> Mapping[str, Any]:
        """The protocol as it was recorded with the scores: primary, averages, note, version."""
        name = self.board.group.protocol
        found: Mapping[str, Any] = next(r.protocols[name] for r in self.board.runs if name in r.protocols)["protocol"]
        return found

    @property
    def primary(self) -> str:
        """The column that ranks; where it is blank, the first column that all ranked rows have."""
        wanted = str(self.protocol["primary"])
        known = self.board.ranked.columns if self.board.ranked else self.measures
        return wanted if wanted in known else next((name for name in self.measures if name in known), wanted)

    @cached_property
    def measures(self) -> tuple[str, ...]:
        """Columns with values: averages from the widest on, the six metrics, further ones."""
        known = (AVERAGES[-1], *AVERAGES[:-1], *METRIC_COLUMNS)
        further = (c for c in self.board.table if c not in (*LEADERBOARD_COLUMNS, "control") and GAIN not in str(c))
        table = self.board.table
        return tuple(str(c) for c in (*known, *further) if c in table and table[c].notna().any())

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the board in its order, each with its `name`, `label` and `control`, empty for a captioner."""
        found: list[dict[str, Any]] = []
        for row in self.board.table.to_dict("records"):
            name = row_name(row[column] for column in ROW_COLUMNS)
            control = str(row["control"]) if given(row.get("control")) else ""
            found.append(
                {
                    **{str(k): v for k, v in row.items()},
                    "name": name,
                    "label": self.label(name) + blank_words(control),
                    "control": control,
                }
            )
        return found

    @property
    def ranked(self) -> list[dict[str, Any]]:
        """Rows with a rank, the best first."""
        return [row for row in self.rows if given(row["rank"]) and not row["control"]]

    @cached_property
    def captioners(self) -> pd.DataFrame:
        """The board without its controls; whole where there is nothing else."""
        table = self.board.table
        own = table[table["control"].map(lambda cell: not given(cell))] if "control" in table else table
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
        seeing, controls = (_variants(self.board.runs, controls=flag) for flag in (False, True))
        names = labels({key: members[0] for key, members in seeing.items()})
        for key, cells in labels({key: members[0] for key, members in controls.items()}).items():
            twin = names.get(str(controls[key][0].manifest.get("seeing")), {})
            names[key] = {**cells, **{name: twin[name] for name in ("strategy",) if name in twin}}
        found: dict[tuple[str, str], list[Run]] = {}
        for key, members in (seeing | controls).items():
            place = (row_name(names[key][column] for column in ROW_COLUMNS), control_of(members[0]))
            found[place] = sorted(members, key=_seed)
        return found

    def members(self, row: Mapping[str, Any]) -> list[Run]:
        """The runs of a row, by seed."""
        return self._members.get((row["name"], row["control"]), [])

    def scored(self, row: Mapping[str, Any]) -> list[Run]:
        """Those that have captions and scores under this protocol."""
        protocol = self.board.group.protocol
        return [run for run in self.members(row) if run.status != "failed" and protocol in run.protocols]

    @cached_property
    def called(self) -> dict[Path, str]:
        """Folder of a run -> what its row is called."""
        found: dict[Path, str] = {}
        for (name, control), runs in self._members.items():
            found |= {run.folder: self.label(name) + blank_words(control) for run in runs}
        return found

    @cached_property
    def samples(self) -> list[JournalRow]:
        """id, modality, reference, concepts of every sample, as the newest ranked run has them."""
        run = self.board.ranked.newest if self.board.ranked else None
        return run.read() if run else []

    def values(self, column: str) -> Array:
        """Per-sample values of the ranked rows [rows, samples], NaN for samples that not all of them have."""
        ranked = self.board.ranked
        assert ranked is not None, "asked for where rows are ranked"
        values = np.full((len(ranked.rows), len(ranked.used)), np.nan)
        values[:, ranked.used] = ranked.values[:, :, ranked.columns.index(column)]
        return values


def read_tables(results: Path, group: Group) -> dict[str, pd.DataFrame]:
    """The rows about a board of each table that is there."""
    found = {}
    for name in BESIDE:
        path = results / f"{name}.csv"
        if path.is_file():
            table = about(read_table(path), group)
            if len(table):
                found[name] = table
    return found


def read_table(path: Path) -> pd.DataFrame:
    """A table of the results folder; names stay text, whatever they look like."""
    head = pd.read_csv(path, nrows=0).columns
    texts = {*BOARD_COLUMNS, *ROW_COLUMNS, "metric", "metric_a", "metric_b", "row", "row_a", "row_b", "by", "group"}
    kinds = dict.fromkeys((c for c in head if c in {*texts, "family", "level", "control"}), str)
    return pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values=[""])


def about(table: pd.DataFrame, group: Group) -> pd.DataFrame:
    """The rows about a board."""
    mask = pd.Series(data=True, index=table.index)
    for column, value in group.cells.items():
        if column in table:
            mask &= table[column] == value
    return table[mask].reset_index(drop=True)


def given(value: Any) -> bool:
    """Whether a cell holds anything."""
    return value is not None and value == value and value != ""


def blank_words(control: str) -> str:
    """What is said behind the name of a captioner that sees blank pictures: it has the name of the one that sees."""
    return " (blank pictures)" if control == BLANK else ""


def control_of(run: Run) -> str:
    """The control that a run is; empty for a captioner's."""
    return str(run.row.get("control") or "")


def _variants(runs: Iterable[Run], *, controls: bool) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        if bool(control_of(run)) == controls:
            found.setdefault(str(run.manifest.get("variant")), []).append(run)
    return found


def _seed(run: Run) -> tuple[int, str]:
    seed = run.row.get("seed")
    return (int(seed) if isinstance(seed, int) else -1, run.folder.name)


def mean_of(runs: Sequence[Run], name: str) -> float | None:
    """The mean of a fact over the runs that know it."""
    found = [float(run.row[name]) for run in runs if given(run.row.get(name))]
    return sum(found) / len(found) if found else None
