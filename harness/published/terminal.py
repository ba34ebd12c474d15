"""The tables of `capbench paper` on the terminal."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from harness.machine.terminal import console, table
from harness.published import printed
from harness.tables.boards import Board

SCORES = printed.SCORES
TITLES = {"leaderboard": "published leaderboard", "modality_ablation": "published effect of the modality in the prompt"}


def published(table: pd.DataFrame, findings: Sequence[printed.Finding]) -> None:
    """The printed scores; an average that is not what follows from them has the recomputed value behind it."""
    for name, title in TITLES.items():
        rows = []
        part = table[table["table"] == name]
        for (model, configuration), cells in part.groupby(["model", "configuration"], sort=False):
            by = _by_metric(cells)
            rows.append([str(model), str(configuration), *(_printed(by[metric]) for metric in SCORES)])
        _print(f"{title} (doi {printed.DOI})", rows)
    console.print("averages: as printed -> recomputed from the printed metrics, where rounding does not explain it")
    console.print(f"{len(findings)} inconsistent cells, not the mean of the values printed beside them:")
    for number, finding in enumerate(findings, start=1):
        wrong = ", ".join(f"{name} {value:.3f} instead of {mean:.4f}" for name, value, mean in finding.cells)
        console.print(f"  {number}. {finding.model} {finding.metric}: {wrong} ({finding.reason})", markup=False)


def _printed(cell: Mapping[Hashable, Any]) -> str:
    return f"{cell['published']:.3f}" + (f" -> {cell['recomputed']:.4f}" if cell["note"] else "")


def _by_metric(cells: pd.DataFrame) -> dict[str, dict[Hashable, Any]]:
    return {str(row["metric"]): row for row in cells.to_dict("records")}


def no_board(protocol: str, titles: Sequence[str]) -> None:
    """Why nothing of our own stands beside the published rows."""
    console.print(f"\nno rows of our own: no run is scored by protocol {protocol}", markup=False)
    if protocol == "paper":
        console.print("`capbench run experiment=paper dataset.root=FOLDER` makes them", markup=False)
    for title in titles:
        console.print(f"another table: {title}; it cannot be compared with the published one", markup=False)
    if titles:
        console.print("protocol=NAME shows it beside the published rows all the same", markup=False)


def ours(rows: pd.DataFrame, board: Board, obstacles: Sequence[str]) -> None:
    """Our rows below the published ones, each score with its difference."""
    if rows.empty:
        console.print(f"\n{board.key.title}: no row of a published captioner without a modality label", markup=False)
        return
    if obstacles:
        console.print("\nTHESE NUMBERS CANNOT BE COMPARED with the published ones:", markup=False)
        for obstacle in obstacles:
            console.print(f"  {obstacle}", markup=False)
    lines: list[list[str]] = []
    for model, part in rows.groupby("model", sort=False):
        published = part.drop_duplicates("metric").set_index("metric")["published"]
        lines.append([str(model), "published", *(f"{published[metric]:.3f}" for metric in SCORES)])
        for name, cells in part.groupby("configuration", sort=False):
            by = _by_metric(cells)
            lines.append(["", str(name), *(_value(by[metric], ".3f") for metric in SCORES)])
        lines.append([])
    _print(f"ours beside the published: {board.key.title}", lines)
    for note in rows["note"].str.partition("; the published")[0].unique() if not obstacles else ():
        console.print(note, markup=False)


def changes(table: pd.DataFrame, protocol: str, *, found: bool) -> None:
    """Changes by the modality label in percent: as printed, recomputed, and ours."""
    lines: list[list[str]] = []
    for model, part in table.groupby("model", sort=False):
        for name, cells in part.groupby("configuration", sort=False):
            by = _by_metric(cells)
            if name == "published":
                lines.append([str(model), "published", *(f"{by[metric]['published']:+.1f}" for metric in SCORES)])
                lines.append(["", "recomputed", *(f"{by[metric]['recomputed']:+.1f}" for metric in SCORES)])
            else:
                lines.append(["", str(name), *(_value(by.get(metric), "+.1f") for metric in SCORES)])
        lines.append([])
    _print("change by the modality in the prompt, percent", lines)
    if protocol != "paper" and found:
        console.print(f"ours, by protocol {protocol}, CANNOT BE COMPARED with the published changes", markup=False)
    if not found:
        console.print(f"ours: none by protocol {protocol} in ablation.csv of the results", markup=False)


def _value(cell: Mapping[Hashable, Any] | None, form: str) -> str:
    """Ours, and how far from the published one."""
    if cell is None or pd.isna(cell["ours"]):
        return ""
    return f"{cell['ours']:{form}} ({cell['difference']:+{form.removeprefix('+')}})"


def _print(title: str, rows: Sequence[Sequence[str]]) -> None:
    columns = ("model", "configuration", *SCORES)
    table(title, columns, rows, left=columns[:2])
