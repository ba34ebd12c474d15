"""ablation.csv and, for people, ablation.md in the form of the published table: the base, then changes in percent."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness.store import write_text
from harness.tables.columns import BOARD_COLUMNS, ROW_COLUMNS, write_csv

LEVEL = 0.05
NOTE = (
    "Base: the same fit, asked without a label. In brackets the change in percent of the base; * marks p < 0.05 "
    "(paired permutation test, Holm's correction over the rows of a column). Labels right: of those whose truth is "
    "known."
)


def write_ablation(parts: Sequence[pd.DataFrame], results: Path) -> None:
    """Write both files; without a row that was given labels there are none, and old ones go."""
    filled = [part for part in parts if len(part)]
    if not filled:
        for suffix in (".csv", ".md"):
            (results / f"ablation{suffix}").unlink(missing_ok=True)
        return
    table = pd.concat(filled, ignore_index=True).sort_values(list(BOARD_COLUMNS), kind="stable")
    write_csv(table, results / "ablation.csv")
    write_text(results / "ablation.md", "\n".join(_markdown(table)))


def _markdown(table: pd.DataFrame) -> Iterator[str]:
    for board, part in table.groupby(list(BOARD_COLUMNS), sort=True):
        facts = dict(zip(BOARD_COLUMNS, map(str, board), strict=True))
        yield f"**{', '.join(f'{name} {facts[name]}' for name in BOARD_COLUMNS[:-1])}**\n"
        metrics = list(dict.fromkeys(part["metric"]))
        head = [*ROW_COLUMNS, "labels right", *metrics]
        yield f"| {' | '.join(head)} |"
        yield f"|{'|'.join([':--'] * len(ROW_COLUMNS) + ['--:'] * (len(head) - len(ROW_COLUMNS)))}|"
        yield from _rows(part, metrics)
        yield f"\n{NOTE}\n"


def _rows(part: pd.DataFrame, metrics: Sequence[str]) -> Iterator[str]:
    """A base row, then the rows that are compared with it."""
    last: list[str] = []
    for names, row in part.groupby(list(ROW_COLUMNS), sort=False):
        whole = {one["metric"]: one for one in row[row["by"] == "all"].to_dict("records")}
        base = [*map(str, names[:-1]), "none (base)", "", *(f"{whole[name]['base']:.3f}" for name in metrics)]
        if base != last:
            yield _line(base)
        last = base
        yield _line([*map(str, names), _right(row), *(_cell(whole[name]) for name in metrics)])


def _cell(one: Mapping[Hashable, Any]) -> str:
    change = "" if pd.isna(one["change_pct"]) else f" ({one['change_pct']:+.1f} %)"
    return f"{one['value']:.3f}{change}{'*' if one['p_holm'] < LEVEL else ''}"


def _right(row: pd.DataFrame) -> str:
    counts = row[row["by"] == "label"].drop_duplicates("group").set_index("group")["n"]
    return f"{counts.get('right', 0)} of {counts.sum()}" if len(counts) else ""


def _line(cells: Sequence[str]) -> str:
    shown = [cell.replace("|", r"\|") for cell in cells]
    return f"| {' | '.join(shown)} |"
