"""Rows of our own beside those of the published study: scores, changes by the modality in the prompt, parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness.contracts import RequestError
from harness.published import parameters, printed, terminal
from harness.store.integrity import trusted
from harness.store.runs import find_runs
from harness.tables.boards import Board, BoardKey, build, grouped
from harness.tables.columns import ROW_COLUMNS
from harness.tables.labels import row_name

COLUMNS = ("table", "model", "configuration", "metric", "published", "recomputed", "ours", "difference", "note")
CHANGE_COLUMNS = {"protocol", "model", "strategy", "prompt", "modality", "metric", "by", "n", "change_pct", "p_holm"}


def boards_of(results: Path, trials: int) -> list[Board]:
    """Every board of a folder, the newest first; nothing is written."""
    runs = [trusted(run) for run in find_runs(results)]
    boards = [build(key, members, trials) for key, members in grouped(runs).items()]
    return sorted(boards, key=lambda board: (board.newest, board.key.slug), reverse=True)


def ours(protocol: str, boards: Sequence[Board]) -> pd.DataFrame:
    """The newest board of a protocol beside the published leaderboard; says so where there is none."""
    board = next((board for board in boards if board.key.protocol == protocol), None)
    if board is None:
        terminal.no_board(protocol, [board.key.title for board in boards])
        return pd.DataFrame()
    obstacles = incomparable(board.key)
    rows = beside(board, obstacles)
    terminal.ours(rows, board, obstacles)
    return rows


def incomparable(key: BoardKey) -> list[str]:
    """Why the numbers of a board are not those of the study measured again; empty when they are."""
    found = []
    if key.protocol != "paper":
        found.append(f"protocol {key.protocol} measures with other metrics or checkpoints than the study's")
    if key.weights != "hub":
        found.append(f"weights {key.weights} are not the published checkpoints")
    if key.dataset != printed.DATASET:
        found.append(f"dataset {key.dataset} has other pictures than {printed.DATASET}")
    return found


def beside(board: Board, obstacles: Sequence[str]) -> pd.DataFrame:
    """Each row of a published captioner, without a modality in its prompt, next to the published one, by column."""
    published = printed.printed("leaderboard").set_index("model")
    table = board.table[(board.table["control"] == "") & (board.table["modality"] == "none")]
    rows = []
    for name in published.index:
        for row in table[table["model"] == name].to_dict("records"):
            for metric in printed.SCORES:
                known = float(published.loc[name, metric])
                note = _note(row, metric, known, board.key, obstacles)
                rows.append(_compared("ours", row, metric, known, row.get(metric), note))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _compared(
    table: str, row: Mapping[Any, Any], metric: str, published: float, ours: float | None, note: str
) -> dict[Any, Any]:
    """A published value and ours, of a row of a leaderboard or of another table with its names."""
    about = {"table": table, "model": row["model"], "configuration": row_name(row[key] for key in ROW_COLUMNS[1:])}
    difference = None if ours is None or pd.isna(ours) else float(ours) - published
    return {**about, "metric": metric, "published": published, "ours": ours, "difference": difference, "note": note}


def _note(row: Mapping[Any, Any], metric: str, known: float, key: BoardKey, obstacles: Sequence[str]) -> str:
    """What stands in the way of a comparison, else what was measured, and whether the published value is likely."""
    if obstacles:
        return f"not comparable: {'; '.join(obstacles)}"
    n = row["n"] if row["n"] == row["n"] else 0
    words = [f"split {key.split}, {n:.0f} samples; the study: {printed.SPLIT}, {printed.SAMPLES}"]
    words += ["incomplete"] if pd.isna(row["rank"]) else []
    low, high = (float(row.get(f"{metric}_ci_{end}", float("nan"))) for end in ("low", "high"))
    if low == low:
        words.append(f"the published value is {'in' if low <= known <= high else 'out'}side our 95 % interval")
    return "; ".join(words)


# ---------------------------------------------------------------- the modality in the prompt, parameters


def changes(results: Path, protocol: str, published: pd.DataFrame) -> pd.DataFrame:
    """The published changes by the modality in the prompt, and ours, all in percent of the score without it."""
    about = {"table": "modality_change", "configuration": "published", "note": "percent of the score without it"}
    rows = published.assign(**about, difference=published["recomputed"] - published["published"]).to_dict("records")
    own = _own_changes(results, protocol)
    known = published.set_index(["model", "metric"])["published"].to_dict()
    for row in own.to_dict("records"):
        value = known.get((row["model"], row["metric"]))
        if value is not None:
            note = f"{row['dataset']} {row['split']}, {row['n']} samples, p {row['p_holm']:.3g} (Holm)"
            rows.append(_compared("modality_change", row, row["metric"], value, row["change_pct"], note))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    terminal.changes(table, protocol, found=len(own) > 0)
    return table


def _own_changes(results: Path, protocol: str) -> pd.DataFrame:
    """The rows over all samples of ablation.csv; none where it is not there. Raises RequestError on another table."""
    path = results / "ablation.csv"
    if not path.is_file():
        return pd.DataFrame()
    table = pd.read_csv(path)
    lacking = sorted(CHANGE_COLUMNS - set(table.columns))
    if lacking:
        raise RequestError(f"{path}: expected the column {lacking[0]}; `capbench leaderboard` writes the table anew")
    return table[(table["protocol"] == protocol) & (table["by"] == "all")]


def trained(variants: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Trained parameters of the published rows, counted at the real sizes."""
    table = parameters.counted(["lora=paper,full"], variants, None).dropna(subset=["published_trained"])
    parameters.show(table)
    note = table["verdict"] + ": " + table["explanation"]
    about = table[["model"]].assign(table="parameters", configuration=table["strategy"], note=note)
    counts = about.assign(published=table["published_trained"].map(parameters.number), ours=table["params_trained"])
    shares = about.assign(published=table["published_pct"], ours=table["params_trained_pct"])
    both = pd.concat([counts.assign(metric="params_trained"), shares.assign(metric="params_trained_pct")])
    both = both.assign(difference=both["ours"] - both["published"])
    return both.sort_index(kind="stable").reindex(columns=list(COLUMNS))
