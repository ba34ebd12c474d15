"""The tables of `capbench paper` on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
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
        _print(f"{title} (doi {printed.DOI})", _lines(table[table["table"] == name], _printed))
    console.print("averages: as printed -> recomputed from the printed metrics, where rounding does not explain it")
    console.print(f"{len(findings)} inconsistent cells, not the mean of the values printed beside them:")
    for number, finding in enumerate(findings, start=1):
        wrong = ", ".join(f"{name} {value:.3f} instead of {mean:.4f}" for name, value, mean in finding.cells)
        console.print(f"  {number}. {finding.model} {finding.metric}: {wrong} ({finding.reason})")


def _printed(cell: Mapping[Hashable, Any]) -> str:
    return f"{cell['published']:.3f}" + (f" -> {cell['recomputed']:.4f}" if cell["note"] else "")


def no_board(protocol: str, titles: Sequence[str]) -> None:
    """Why nothing of our own stands beside the published rows."""
    console.print(f"\nno rows of our own: no run is scored by protocol {protocol}")
    if protocol == "paper":
        console.print("`capbench run experiment=paper dataset.root=FOLDER` makes them")
    for title in titles:
        console.print(f"another table: {title}; it cannot be compared with the published one")
    if titles:
        console.print("protocol=NAME shows it beside the published rows all the same")


def ours(rows: pd.DataFrame, board: Board, obstacles: Sequence[str]) -> None:
    """Our rows below the published ones, each score with its difference."""
    if rows.empty:
        console.print(f"\n{board.key.title}: no row of a published captioner without a modality label")
        return
    if obstacles:
        console.print("\nTHESE NUMBERS CANNOT BE COMPARED with the published ones:")
        for obstacle in obstacles:
            console.print(f"  {obstacle}")
    lines: list[Sequence[str]] = []
    for _, part in rows.groupby("model", sort=False):
        known = part.drop_duplicates("metric").assign(configuration="published")
        lines += _section(_lines(known, _number("published", ".3f")), _lines(part, _beside(".3f")))
    _print(f"ours beside the published: {board.key.title}", lines)
    for note in rows["note"].str.partition("; the published")[0].unique() if not obstacles else ():
        console.print(note)


def changes(table: pd.DataFrame, protocol: str, *, found: bool) -> None:
    """Changes by the modality label in percent: as printed, recomputed, and ours."""
    lines: list[Sequence[str]] = []
    for _, part in table.groupby("model", sort=False):
        known, own = part[part["recomputed"].notna()], part[part["recomputed"].isna()]
        again = known.assign(configuration="recomputed")
        printed_and_again = _lines(known, _number("published", "+.1f")), _lines(again, _number("recomputed", "+.1f"))
        lines += _section(*printed_and_again, _lines(own, _beside("+.1f")))
    _print("change by the modality in the prompt, percent", lines)
    if protocol != "paper" and found:
        console.print(f"ours, by protocol {protocol}, CANNOT BE COMPARED with the published changes")
    if not found:
        console.print(f"ours: none by protocol {protocol} in ablation.csv of the results")


def _lines(rows: pd.DataFrame, text: Callable[[Mapping[Hashable, Any]], str]) -> list[list[str]]:
    """A line for each model and configuration with the texts of its scores; nothing where it has none."""
    lines = []
    for (model, configuration), part in rows.groupby(["model", "configuration"], sort=False):
        texts = {row["metric"]: text(row) for row in part.to_dict("records")}
        lines.append([str(model), str(configuration), *(texts.get(metric, "") for metric in SCORES)])
    return lines


def _section(*parts: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """The lines of one model, which is named in the first."""
    first, *others = (line for part in parts for line in part)
    return [first, *(["", *line[1:]] for line in others), []]


def _number(column: str, form: str) -> Callable[[Mapping[Hashable, Any]], str]:
    return lambda cell: f"{cell[column]:{form}}"


def _beside(form: str) -> Callable[[Mapping[Hashable, Any]], str]:
    """Ours, and how far from the published one."""
    difference = f"+{form.removeprefix('+')}"
    return lambda cell: "" if pd.isna(cell["ours"]) else f"{cell['ours']:{form}} ({cell['difference']:{difference}})"


def _print(title: str, rows: Sequence[Sequence[str]]) -> None:
    columns = ("model", "configuration", *SCORES)
    table(title, columns, rows, left=columns[:2])
