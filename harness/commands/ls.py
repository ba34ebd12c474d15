"""capbench ls: fits and runs with their state, and disk use.

usage: capbench ls [results=FOLDER] [out=FILE.csv]

Fits and runs with status, seed, age and size; orphaned fits (no run uses them), unfinished and failed ones; disk use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.filesize import decimal

from harness import config
from harness.commands._options import parse
from harness.contracts import RequestError
from harness.machine.terminal import console, table
from harness.store import make_folder
from harness.store.inventory import Item, age, disk_use, inventory, plain
from harness.tables.csv_files import write_csv

COLUMNS = (
    "kind", "folder", "id", "fit_id", "status", "orphaned", "seed", "users", "finished_at", "bytes", "checkpoint_bytes",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """The values of conf/ls.yaml."""

    results: str
    out: str | None


def main(argv: Sequence[str]) -> int:
    """Print, and write where asked."""
    settings: Settings = config.options("ls", parse("ls", argv).overrides, Settings)
    results = Path(settings.results)
    if not results.is_dir():
        raise RequestError(f"results={results}: expected a folder, found none; start with `capbench run`")
    items = inventory(results)
    for kind, title in (("fit", "fits"), ("run", "runs")):
        _print(title, [item for item in items if item.kind == kind])
    for line in (_remarks(items), _sizes(results, items)):
        console.print(line)
    if settings.out:
        path = Path(settings.out)
        make_folder(path.parent, "out")
        write_csv(records(items), path)
        console.print(f"written: {path}")
    return 0


def records(items: Sequence[Item]) -> pd.DataFrame:
    """One row per fit or run, with all that is known."""
    rows = [
        {**vars(item), "folder": item.folder.name, "id": item.id, "orphaned": item.orphaned}
        | {"seed": plain(item.seed), "users": plain(item.users)}
        for item in items
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def disk(results: Path, items: Sequence[Item]) -> dict[str, int]:
    """Kind -> bytes; fits without their checkpoints."""
    total = disk_use(results)
    checkpoints = sum(item.checkpoint_bytes for item in items)
    known = {"fits": disk_use(results / "fits") - checkpoints, "checkpoints": checkpoints}
    known |= {name: disk_use(results / name) for name in ("runs", "cache", "logs")}
    return {**known, "tables and the rest": total - sum(known.values()), "all": total}


def _print(title: str, items: Sequence[Item]) -> None:
    last = "runs" if title == "fits" else "fit"
    rows = []
    for item in items:
        status = f"{item.status}, orphaned" if item.orphaned else item.status
        used = item.fit_id if item.kind == "run" else plain(item.users)
        rows.append([item.folder.name, status, plain(item.seed), age(item.finished_at), decimal(item.bytes), used])
    if rows:
        table(title, ("folder", "status", "seed", "age", "size", last), rows, left=["folder", "status", last])


def _remarks(items: Sequence[Item]) -> str:
    """How many of which state, in the order in which one would look at them."""
    states = Counter(f"{item.status} {item.kind}s" for item in items)
    states["orphaned fits (no run uses them)"] = sum(item.orphaned for item in items)
    return "; ".join(f"{count} {state}" for state, count in states.items() if count) or "no fit and no run"


def _sizes(results: Path, items: Sequence[Item]) -> str:
    sizes = ", ".join(f"{kind} {decimal(count)}" for kind, count in disk(results, items).items())
    return f"disk: {sizes}; `capbench clean` frees what is not needed"
