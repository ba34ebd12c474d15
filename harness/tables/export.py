"""A leaderboard for people: the terminal, Markdown, LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.machine.terminal import console, table
from harness.store import write_text

if TYPE_CHECKING:
    from harness.tables.boards import Board

TEXT = ("model", "strategy", "prompt", "modality", "control")
HIDDEN = ("class", "rank_low", "rank_high", "peak_memory_bytes")
COSTS = ("captions_per_s", "params_trained_pct", "seeds", "n")
PRINTED = 50  # rows on a terminal
LATEX = str.maketrans(  # text that LaTeX prints as it is
    {char: f"\\{char}" for char in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
RANK_HELP = "ranks and intervals: 95 %, bootstrap over images"


def readable(table: pd.DataFrame, *, brief: bool = False) -> pd.DataFrame:
    """The table as text: values and ranks with their intervals, empty columns left out.

    `brief` also leaves out what is the same in every row, as a terminal is narrow.
    """
    rows = table.to_dict("records")
    names = [str(name) for name in table if _says_something(table, str(name), brief)]
    return pd.DataFrame({name: [_cell(name, row) for row in rows] for name in names})


def _says_something(table: pd.DataFrame, name: str, brief: bool) -> bool:
    if name in HIDDEN or name.endswith(("_ci_low", "_ci_high")):  # the bounds stand with their values
        return False
    if name == "control":
        return bool((table["control"] != "").any())
    # A control has no strategy, prompt and modality that would set the captioners apart.
    part = table[table["control"] == ""] if name in TEXT else table
    if brief and name in ("strategy", "prompt", "modality", "seeds", "n") and part[name].nunique() <= 1:
        return False
    return name in ("rank", *TEXT) or bool(table[name].notna().any())


def _cell(name: str, row: Mapping[Any, Any]) -> str:
    value = row[name]
    if pd.isna(value):
        return ("control" if row["control"] else "-") if name == "rank" else ""
    if name in TEXT:
        return str(value)
    if name == "rank":
        low, high = row["rank_low"], row["rank_high"]
        return f"{value:.0f}" if low == high else f"{value:.0f} ({low:.0f}-{high:.0f})"
    if not pd.isna(row.get(f"{name}_ci_low")):
        return f"{value:.3f} [{row[f'{name}_ci_low']:.3f}, {row[f'{name}_ci_high']:.3f}]"
    if name in ("seeds", "n"):
        return f"{value:.0f}"
    if name.startswith("gain_"):
        return f"{value:+.3f}"
    return f"{value:.1f}" if name == "captions_per_s" else f"{value:.3f}"


def show(board: Board, path: Path, others: Sequence[str]) -> None:
    """Print the board, its note, why columns are blank, and where the files are."""
    text = readable(board.table.head(PRINTED), brief=True)
    left_out = _narrow(text, board, console.width)
    kept = text.drop(columns=left_out)
    table(board.key.title, list(map(str, kept)), kept.to_numpy().tolist(), left=TEXT, caption=board.note)
    if left_out:
        console.print(f"this terminal is narrow: {', '.join(left_out)} are in the files only")
    if len(board.table) > PRINTED:
        console.print(f"the first {PRINTED} of {len(board.table)} rows; the files have all")
    for line in _remarks(board):
        console.print(line)
    for title in others:
        console.print(f"another table: {title}")
    console.print(f"leaderboard: {path} (.md, .tex beside it); {RANK_HELP}")


def _remarks(board: Board) -> list[str]:
    """Where less is better, and why columns are blank."""
    lower = [str(name) for name in board.table if name in board.lower and board.table[name].notna().any()]
    less = [f"less is better: {', '.join(lower)}"] if lower else []
    return [*less, *(f"{name} is blank: {reason}" for name, reason in board.unfilled.items())]


def _narrow(text: pd.DataFrame, board: Board, width: int) -> list[str]:
    """The columns to leave out so that the others fit: cost first, then metrics; never the one that ranks."""
    widths = {name: 3 + max([len(name), *map(len, text[name])]) for name in text.columns}  # padding and divider
    keep = ("rank", "model", "strategy", board.primary, "control")
    metrics = [name for name in text.columns if name not in (*COSTS, *board.headlines, *keep)]
    left_out: list[str] = []
    for name in [*COSTS, *metrics, *board.headlines]:
        if sum(widths.values()) <= width:
            break
        if name in widths and name not in keep:
            left_out.append(name)
            del widths[name]
    return left_out


def write_markdown(board: Board, path: Path) -> None:
    """A Markdown table with its note above."""
    text = readable(board.table)
    lines = [f"**{board.key.title}**", "", *([board.note, ""] if board.note else [])]
    lines.append("| " + " | ".join(text.columns) + " |")
    lines.append("|" + "|".join(":--" if name in TEXT else "--:" for name in text.columns) + "|")
    lines += [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in text.itertuples(index=False)
    ]
    lines += ["", f"{RANK_HELP}.", *_remarks(board)]
    write_text(path, "\n".join(lines) + "\n")


def write_latex(board: Board, path: Path) -> None:
    """A LaTeX tabular (booktabs) with the note as a comment."""
    text = readable(board.table)
    align = "".join("l" if name in TEXT else "r" for name in text.columns)
    head = " & ".join(name.replace("_", " ") for name in text.columns)
    body = [" & ".join(cell.translate(LATEX) for cell in row) for row in text.itertuples(index=False)]
    lines = [f"% {board.key.title}", f"% {board.note or RANK_HELP}"]
    lines += [f"\\begin{{tabular}}{{{align}}}", "\\toprule", rf"{head} \\", "\\midrule"]
    lines += [*(rf"{row} \\" for row in body), "\\bottomrule", "\\end{tabular}"]
    write_text(path, "\n".join(lines) + "\n")
