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

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import config
from harness.cells.dry_run import show_plan
from harness.cells.worker import Ended, Once, Settings, attempt, died, log, parts, read_end, record, task, work
from harness.commands._options import parse
from harness.contracts import Launcher, RequestError, Split, Sweep
from harness.machine import ranks
from harness.machine.devices import pick_device
from harness.machine.terminal import bar, console, errors
from harness.scoring.protocol import plan, scorable
from harness.scoring.score import Plan, score
from harness.store import digest, make_folder, read_manifest
from harness.store.runs import Run
from harness.tables.rebuild import finish, rebuild, usual


def main(argv: Sequence[str]) -> int:
    """Run all cells of the request, score them, build the tables."""
    arguments = parse("run", argv, multirun=True, cfg=True, dry_run=True)
    cells = config.cells("run", arguments.overrides, multirun=arguments.multirun, config_dir=arguments.config_dir)
    if arguments.cfg:
        console.print(config.to_yaml(cells[0].config), markup=False)
        return 0
    sweep = arguments.multirun or len(cells) > 1
    if sweep and ranks.world() > 1:
        raise RequestError("torchrun runs one cell; for a sweep leave torchrun out and say launcher=torchrun")
    console.quiet = errors.quiet = not ranks.first()
    launcher: Launcher = config.build(cells[0], "launcher")
    if sweep:
        launcher.prepare([work.__module__, *config.modules(cells)])
    for one in cells:  # everything is built once before anything runs: a wrong value costs no time
        parts(one, {})
    results = Path(_same(cells, "results"))
    if arguments.dry_run:
        return show_plan(cells, results)
    plans = [plan(one, arguments.config_dir) for one in _by_protocol(cells)]
    make_folder(results)
    datasets: dict[str, Once] = {}
    ended = _sweep(cells, launcher, results) if sweep else [_alone(cells[0], datasets)]
    if not ranks.first():
        return _summary(cells, ended)
    failed = _score(cells, ended, plans, datasets, results)
    _tables(cells, ended, results)
    return max(_summary(cells, ended), failed)


# ---------------------------------------------------------------- captions


def _alone(one: config.Cell, datasets: dict[str, Once]) -> Ended:
    """A single cell has the command's process, its progress bars and its exit code for a wrong request."""
    ended = attempt(one, datasets, task(one)["id"], raises=True)
    if ended.status == "failed":
        console.quiet = errors.quiet = not ranks.speaker()  # of several processes one says what happened
    _say(1, 1, one, ended)
    return ended


def _sweep(cells: Sequence[config.Cell], launcher: Launcher, results: Path) -> list[Ended]:
    """Every cell in a process of its own."""
    settings: Settings = config.settings(cells[0], Settings)
    order = spread(cells)
    cells = [cells[place] for place in order]
    tasks = [task(one) for one in cells]
    files = [record(results, one["id"]) for one in tasks]
    before = [_content(file) for file in files]
    devices, width = _places(settings)
    start, ended = time.perf_counter(), dict[int, Ended]()
    request = Sweep(work, tasks, width, devices, results / "logs" / launcher.name)
    with bar("cells", len(cells)) as advance:
        for place, how in launcher.launch(request):
            if _content(files[place]) == before[place]:  # nothing was written: another sweep's word is as good
                how = how or "its process left without a word"
                ended[place] = died(cells[place], tasks[place]["id"], how, time.perf_counter() - start)
            else:
                ended[place] = read_end(files[place])
            _say(len(ended), len(cells), cells[place], ended[place])
            advance(1)
    return [ended[order.index(place)] for place in range(len(cells))]


def spread(cells: Sequence[config.Cell]) -> list[int]:
    """Places of the cells, those that share a fit apart: side by side, the second would only wait for the first."""
    before: Counter[str] = Counter()
    turns = []
    for one in cells:
        fit = digest([one.config[name] for name in ("dataset", "model", "lora", "train", "seed")])
        turns.append(before[fit])
        before[fit] += 1
    return sorted(range(len(cells)), key=lambda place: (turns[place], place))


def _content(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def _places(settings: Settings) -> tuple[list[str], int]:
    """The CUDA devices for a sweep's cells, and how many cells fit the machine at once."""
    import torch

    if pick_device(settings.device, settings.threads) == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        devices = visible.split(",") if visible else [str(n) for n in range(torch.cuda.device_count())]
        return devices, len(devices)
    if settings.device.startswith("cuda"):
        return [], 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [], max(1, cores // (settings.threads or cores))


def _say(number: int, count: int, one: config.Cell, ended: Ended) -> None:
    console.print(f"[{number}/{count}] {one.label}: {ended}, {ended.seconds:.1f} s", markup=False)
    if ended.status == "failed":
        errors.print(f"the whole error: {log(Path(one.config['results']), task(one)['id'])}", markup=False)


# ---------------------------------------------------------------- scores and tables


def _score(
    cells: Sequence[config.Cell],
    ended: Sequence[Ended],
    plans: Sequence[Plan],
    datasets: dict[str, Once],
    results: Path,
) -> int:
    """Score every run by the protocol of its cell. 1 when a metric failed."""

    def load(node: Mapping[str, Any], split: str) -> Split:
        dataset = datasets.setdefault(digest(node), Once(config.build_node(node, "dataset")))
        return dataset.load(split)

    failed = False
    for one in plans:
        mine = [
            (cell, results / "runs" / end.run)
            for cell, end in zip(cells, ended, strict=True)
            if end.run and cell.config["protocol"]["name"] == one.protocol.name
        ]
        runs = [Run(folder, read_manifest(folder) or {}) for _, folder in mine]
        if runs:
            settings: Settings = config.settings(mine[0][0], Settings)
            device = pick_device(settings.device, settings.threads)
            failed |= bool(score([scorable(run, load) for run in runs], [one], device, results).failed)
    return int(failed)


def _tables(cells: Sequence[config.Cell], ended: Sequence[Ended], results: Path) -> None:
    for one, end in zip(cells, ended, strict=True):
        if end.run:
            row = (read_manifest(results / "runs" / end.run) or {})["row"]
            wanted = {key: row[key] for key in ("dataset", "split", "weights")}
            finish(results, **wanted, protocol=one.config["protocol"]["name"])
            return
    rebuild(results, **usual())  # the failures are rows of runs.csv


def _by_protocol(cells: Sequence[config.Cell]) -> list[config.Cell]:
    """The first cell of each protocol in a sweep."""
    return list({one.config["protocol"]["name"]: one for one in reversed(cells)}.values())


def _same(cells: Sequence[config.Cell], key: str) -> str:
    values = sorted({str(one.config[key]) for one in cells})
    if len(values) > 1:
        raise RequestError(f"{key}={','.join(values)}: expected one per command, its tables hold all cells")
    return values[0]


def _summary(cells: Sequence[config.Cell], ended: Sequence[Ended]) -> int:
    bad = [(one, end) for one, end in zip(cells, ended, strict=True) if end.status not in ("ok", "refused")]
    for one, end in bad:
        errors.print(f"capbench: {one.label}: {end}", markup=False)
    return 1 if bad else 0
