"""The `run` command: dataset -> prompt -> captioner (strategy) -> captions -> scores -> tables -> leaderboard."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import cell, config, provenance
from harness.arguments import parse
from harness.contracts import Refused, RequestError, Split
from harness.leaderboard import finish
from harness.progress import console, errors
from harness.score import pick_device, plan, scorable
from harness.scoring import Plan, score
from harness.store import SHORT, digest, make_folder, read_manifest, write_text
from harness.tables import Run

GROUPS = ("dataset", "model", "lora", "prompt", "modality", "train", "generate")
TRIALS = 1000


@dataclass(frozen=True)
class Settings:
    """The root-level values of conf/run.yaml."""

    seed: int
    split: str
    results: str
    device: str
    threads: int | None
    metrics: list[str]


class Once:
    """A dataset whose splits are read once per command, however many cells use it."""

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.name = dataset, dataset.name
        self.splits: dict[str, Split] = {}

    def load(self, split: str) -> Split:
        """The split, read at the first call."""
        if split not in self.splits:
            self.splits[split] = self.dataset.load(split)
            _report_rejected(self.name, self.splits[split])
        return self.splits[split]


def main(argv: Sequence[str]) -> int:
    """Run all cells of the request, score them, build the tables."""
    arguments = parse("run", argv, multirun=True, cfg=True)
    cells = config.cells("run", arguments.overrides, multirun=arguments.multirun, config_dir=arguments.config_dir)
    if arguments.cfg:
        console.print(config.to_yaml(cells[0].config), markup=False)
        return 0
    for one in cells:  # everything is built once before anything runs: a wrong value costs no time
        _parts(one, {})
    plans = [plan(one, arguments.config_dir) for one in _by_protocol(cells)]
    results = make_folder(_one_results(cells))
    datasets: dict[str, Once] = {}
    outcomes = _work(cells, results, datasets, sweep=arguments.multirun or len(cells) > 1)
    ended = [(one, o) for one, o in zip(cells, outcomes, strict=True) if isinstance(o, cell.Outcome)]
    failed = _score(ended, plans, datasets, results)
    if ended:
        row = (read_manifest(ended[0][1].folder) or {})["row"]
        wanted = {key: row[key] for key in ("dataset", "split", "weights")}
        finish(results, TRIALS, **wanted, protocol=ended[0][0].config["protocol"]["name"])
    return max(_summary(cells, outcomes), failed)


def _score(
    ended: Sequence[tuple[config.Cell, cell.Outcome]], plans: Sequence[Plan], datasets: dict[str, Once], results: Path
) -> int:
    """Score every run by the protocol of its cell. 1 when a metric failed."""

    def load(node: Mapping[str, Any], split: str) -> Split:
        return datasets[digest(node)].load(split)

    failed = False
    for one in plans:
        mine = [(c, o.folder) for c, o in ended if c.config["protocol"]["name"] == one.protocol.name]
        runs = [Run(folder, read_manifest(folder) or {}) for _, folder in mine]
        if runs:
            settings: Settings = config.settings(mine[0][0], Settings)
            device = pick_device(settings.device, settings.threads)
            failed |= bool(score([scorable(run, load) for run in runs], [one], device, results).failed)
    return int(failed)


def _by_protocol(cells: Sequence[config.Cell]) -> list[config.Cell]:
    """The first cell of each protocol in a sweep."""
    return list({one.config["protocol"]["name"]: one for one in reversed(cells)}.values())


def _one_results(cells: Sequence[config.Cell]) -> Path:
    folders = sorted({str(one.config["results"]) for one in cells})
    if len(folders) > 1:
        raise RequestError(f"results={','.join(folders)}: expected one folder per command, its tables hold all cells")
    return Path(folders[0])


def _work(
    cells: Sequence[config.Cell], results: Path, datasets: dict[str, Once], *, sweep: bool
) -> list[cell.Outcome | Exception]:
    outcomes: list[cell.Outcome | Exception] = []
    for number, one in enumerate(cells, start=1):
        start = time.perf_counter()
        outcome = _attempt(one, datasets, results, sweep=sweep)
        outcomes.append(outcome)
        console.print(
            f"[{number}/{len(cells)}] {one.label}: {_say(outcome)}, {time.perf_counter() - start:.1f} s", markup=False
        )
    return outcomes


def _attempt(one: config.Cell, datasets: dict[str, Once], results: Path, *, sweep: bool) -> cell.Outcome | Exception:
    """One cell, shielded: in a sweep no error reaches the other cells. A single cell's wrong request is raised."""
    early = results / "runs" / f"failed-{digest([dict(one.choices), dict(one.config)])[:SHORT]}"
    try:
        outcome = cell.run(_parts(one, datasets))
    except Refused as error:
        if not sweep:
            raise
        return error
    except Exception as error:
        if isinstance(error, RequestError) and not sweep:
            raise
        _keep_error(one, early, error)
        return _without_frames(error)
    finally:
        gc.collect()  # a captioner holds its model in reference cycles; the next cell needs the memory now
    _forget(early)
    return outcome


def _keep_error(one: config.Cell, early: Path, error: Exception) -> None:
    """Keep the traceback; a cell that failed before it had an identity gets a run folder of its own."""
    log = early.parent.parent / "logs" / f"{early.name}.log"
    write_text(log, "".join(traceback.format_exception(error)))
    errors.print(f"the whole error: {log}", markup=False)
    if not isinstance(error, cell.Recorded):
        row = {"run_id": early.name.rpartition("-")[2], "error": cell.brief(error), "model": one.choices.get("model")}
        row |= {"strategy": one.choices.get("lora"), "finished_at": provenance.now()}
        cell.record_failure(early, {"config": dict(one.config)}, row, {"command": provenance.command()})


def _without_frames(error: Exception) -> Exception:
    """The error without its tracebacks, which are in the log: their frames would keep the cell's model in memory."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def _forget(early: Path) -> None:
    """A cell that failed before and has ended well now is no failure any more."""
    manifest = early / "manifest.json"
    if manifest.exists():
        manifest.unlink()
        early.rmdir()


def _parts(one: config.Cell, datasets: dict[str, Once]) -> cell.Parts:
    settings = config.settings(one, Settings)
    built = {group: config.build(one, group) for group in GROUPS}
    key = digest(one.config["dataset"])
    return cell.Parts(
        dataset=datasets.setdefault(key, Once(built["dataset"])),
        captioner=built["model"],
        strategy=built["lora"],
        prompt=built["prompt"],
        modality=built["modality"],
        training=built["train"],
        decoding=built["generate"],
        identities={group: config.identity_values(one.config[group]) for group in GROUPS},
        split=settings.split,
        seed=settings.seed,
        weights=str(one.config["weights"]["name"]),
        device=pick_device(settings.device, settings.threads),
        results=Path(settings.results),
        config=one.config,
        config_yaml=config.to_yaml(one.config),
    )


def _report_rejected(name: str, split: Split) -> None:
    for rejected in split.rejected[:5]:
        errors.print(f"{name} {split.name}: {rejected.id} rejected: {rejected.reason}", markup=False)
    if len(split.rejected) > 5:
        errors.print(
            f"{name} {split.name}: {len(split.rejected) - 5} more rejected rows, all in the manifest", markup=False
        )


def _say(outcome: cell.Outcome | Exception) -> str:
    if isinstance(outcome, Refused):
        return str(outcome)
    if isinstance(outcome, Exception):
        return f"failed ({cell.brief(outcome)})"
    return outcome.status if outcome.fresh else f"{outcome.status}, done before"


def _summary(cells: Sequence[config.Cell], outcomes: Sequence[cell.Outcome | Exception]) -> int:
    bad = [
        (one.label, outcome)
        for one, outcome in zip(cells, outcomes, strict=True)
        if not isinstance(outcome, Refused) and (isinstance(outcome, Exception) or outcome.status != "ok")
    ]
    for label, outcome in bad:
        errors.print(f"capbench: {label}: {_say(outcome)}", markup=False)
    return 1 if bad else 0
