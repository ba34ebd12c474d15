"""capbench run: one cell, or a sweep with -m: fit, captions, scores, leaderboard.

usage: capbench run [-m] [--dry-run] [--config-dir DIR] [--cfg] [KEY=VALUE ...]

dataset -> prompt -> captioner (strategy) -> fit -> captions -> scores -> tables. What is finished is skipped, what was
interrupted goes on.

  -m, --multirun     a sweep: values separated by commas, or glob(*) for all choices of a group
  --dry-run          print the cells, what is done, what would run, its memory and time; run nothing
  --config-dir DIR   a folder of your own yaml files (model/mine.yaml, ...) joins the choices
  --cfg              print the resolved configuration and do nothing

Each cell of a sweep has a process of its own, its log in results/logs. launcher.jobs=N runs N at once; launcher=slurm
submits them; launcher=torchrun gives each several processes.
Values anywhere in the tree: seed=1  train.epochs=2  lora.rank=8  generate.max_new_tokens=40  dataset.limit=100
Exit codes: 0 done; 1 some runs failed (tables are built all the same); 2 the request was wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import config
from harness.cells.dry_run import show_plan
from harness.cells.parts import Once, Settings
from harness.cells.sweep import prepare, run_cells, summary
from harness.commands._options import parse
from harness.contracts import RequestError, Split
from harness.machine import ranks
from harness.machine.devices import pick_device
from harness.machine.terminal import console
from harness.scoring.protocol import pictures, scheme
from harness.scoring.score import Scheme, score
from harness.store import digest, make_folder, read_manifest
from harness.store.runs import Run
from harness.tables.rebuild import finish, rebuild, usual


def main(argv: Sequence[str]) -> int:
    """Run all cells of the request, score them, build the tables."""
    arguments = parse("run", argv, multirun=True, cfg=True, dry_run=True)
    cells = config.cells("run", arguments.overrides, multirun=arguments.multirun, config_dir=arguments.config_dir)
    if arguments.cfg:
        console.print(config.to_yaml(cells[0].config))
        return 0
    launcher = prepare(cells, sweep=arguments.multirun or len(cells) > 1)
    results = Path(_same(cells, "results"))
    if arguments.dry_run:
        return show_plan(cells, results)
    schemes = [scheme(one, arguments.config_dir) for one in _by_protocol(cells)]
    make_folder(results)
    datasets: dict[str, Once] = {}
    ended = run_cells(cells, launcher, datasets, results)  # dataset -> prompt -> captioner (strategy) -> captions
    if not ranks.first():
        return summary(cells, ended)
    runs = [(one, results / "runs" / end.run) for one, end in zip(cells, ended, strict=True) if end.run]
    failed = _score(runs, schemes, datasets, results)
    _tables(runs, results)
    return max(summary(cells, ended), failed)


Runs = Sequence[tuple[config.Cell, Path]]
"""The cells that have captions, and their folders."""


def _score(runs: Runs, schemes: Sequence[Scheme], datasets: dict[str, Once], results: Path) -> int:
    """Score every run by the protocol of its cell. 1 when a metric failed."""

    def load(node: Mapping[str, Any], split: str) -> Split:
        dataset = datasets.setdefault(digest(node), Once(config.build_node(node, "dataset")))
        return dataset.load(split)

    failed = False
    for one in schemes:
        mine = [(cell, folder) for cell, folder in runs if cell.config["protocol"]["name"] == one.protocol.name]
        if mine:
            settings: Settings = config.settings(mine[0][0], Settings)
            device = pick_device(settings.device, settings.threads)
            made = [Run(folder, read_manifest(folder) or {}) for _, folder in mine]
            failed |= bool(score(made, [one], device, results, pictures(load)).failed)
    return int(failed)


def _tables(runs: Runs, results: Path) -> None:
    """Rebuild all tables, and print the leaderboard of the first run."""
    if not runs:
        rebuild(results, **usual())  # the failures are rows of runs.csv
        return
    cell, folder = runs[0]
    row = (read_manifest(folder) or {})["row"]
    wanted = {key: row[key] for key in ("dataset", "split", "weights")}
    finish(results, **wanted, protocol=cell.config["protocol"]["name"])


def _by_protocol(cells: Sequence[config.Cell]) -> list[config.Cell]:
    """The first cell of each protocol in a sweep."""
    return list({one.config["protocol"]["name"]: one for one in reversed(cells)}.values())


def _same(cells: Sequence[config.Cell], key: str) -> str:
    values = sorted({str(one.config[key]) for one in cells})
    if len(values) > 1:
        raise RequestError(f"{key}={','.join(values)}: expected one per command, its tables hold all cells")
    return values[0]
