"""The `score` command: every run that lacks a metric, or two caption files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import config
from harness.commands._options import parse
from harness.commands.leaderboard import finish
from harness.contracts import UNKNOWN, Metric, RequestError, ScoreProtocol, Split
from harness.machine import ranks
from harness.machine.terminal import console, errors
from harness.scoring.caption_files import read_captions
from harness.scoring.score import Column, Images, Plan, Scorable, Scoring, score
from harness.store import SHORT, digest, make_folder, write_json, write_text
from harness.tables.columns import Run, find_runs, write_csv
from harness.tables.samples import samples_csv
from harness.tables.scores import scores_table

if TYPE_CHECKING:
    import pandas as pd

TRIALS = 1000


@dataclass(frozen=True)
class Settings:
    """The root-level values of conf/score.yaml."""

    captions: str | None
    references: str | None
    images: str | None
    results: str
    device: str
    threads: int | None
    metrics: list[str]


@dataclass(frozen=True)
class Submission(Run):
    """Two caption files in the place of a run."""

    given: tuple[Mapping[str, Any], ...] = ()

    def read(self) -> list[dict[str, Any]]:
        """The rows made from the files."""
        return [dict(row) for row in self.given]


def main(argv: Sequence[str]) -> int:
    """Score runs or files by one or several protocols and write the tables."""
    arguments = parse("score", argv)
    cells = config.cells("score", arguments.overrides, multirun=True, config_dir=arguments.config_dir)
    settings: Settings = config.settings(cells[0], Settings)
    plans = [plan(cell, arguments.config_dir) for cell in cells]
    device = pick_device(settings.device, settings.threads)
    if settings.captions or settings.references:
        return _score_files(settings, cells[0], plans, device)
    runs = [run for run in find_runs(Path(settings.results)) if run.status != "failed"]
    if not runs:
        raise RequestError(f"results={settings.results}: no finished run to score; start with `capbench run`")
    ended = score([scorable(run) for run in runs], plans, device, Path(settings.results))
    finish(Path(settings.results), TRIALS, protocol=plans[0].protocol.name)
    return 1 if ended.failed else 0


def plan(cell: config.Cell, config_dir: str | None) -> Plan:
    """A cell's protocol with its metrics and the further ones that were asked for."""
    protocol: ScoreProtocol = config.build(cell, "protocol")
    return Plan(protocol, columns(protocol, cell.config["metrics"], config_dir))


def scorable(run: Run, load: Callable[[Mapping[str, Any], str], Split] | None = None) -> Scorable:
    """A run with its captions; where a metric looks at pictures, they come from the dataset of the manifest.

    load: (dataset node, split) -> the split, for datasets that are in memory already.
    """
    return Scorable(run.folder, run.rows, cache(partial(_images, run, load or _load)))


def _images(run: Run, load: Callable[[Mapping[str, Any], str], Split]) -> Images:
    split = load(run.manifest["config"]["dataset"], run.row["split"])
    return {sample.id: sample.images[0] for sample in split.samples}


def _load(node: Mapping[str, Any], split: str) -> Split:
    found: Split = config.build_node(node, "dataset").load(split)
    return found


def columns(protocol: ScoreProtocol, extra: Sequence[str], config_dir: str | None) -> list[Column]:
    """The protocol's columns, then further metrics by name (their last value is the headline)."""
    found = []
    for name, spec in protocol.columns.items():
        metric = _metric(str(spec["metric"]), spec.get("options") or {}, config_dir)
        if spec["value"] not in metric.values:
            raise RequestError(
                f"protocol.columns.{name}.value={spec['value']}: {metric.name} has {', '.join(metric.values)}"
            )
        found.append(Column(name, metric, str(spec["value"])))
    for name in extra:
        metric = _metric(name, {}, config_dir)
        found.append(Column(name, metric, metric.values[-1]))
    return found


def pick_device(device: str, threads: int | None) -> str:
    """Resolve device=auto and set torch's CPU threads. Raises RequestError on a device that is not there."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    if device == "auto":
        return ranks.place("cuda" if torch.cuda.is_available() else "cpu")
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise RequestError(f"device={device}: expected auto, cpu, cuda or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise RequestError(f"device={device}: torch sees no CUDA device; use device=cpu")
    return ranks.place(device)


def _metric(name: str, options: Mapping[str, Any], config_dir: str | None) -> Metric:
    metric: Metric = config.build_node(config.choice("metric", name, config_dir) | dict(options), f"metric.{name}")
    return metric


def _score_files(settings: Settings, cell: config.Cell, plans: Sequence[Plan], device: str) -> int:
    if not (settings.captions and settings.references):
        raise RequestError("captions=FILE and references=FILE belong together; one of them is missing")
    results = make_folder(Path(settings.results))
    if (results / "runs").is_dir():
        raise RequestError(
            f"results={results}: holds runs, whose tables would be overwritten; use another results=FOLDER"
        )
    rows = _rows(settings.captions, settings.references)
    name = f"{Path(settings.captions).stem}-{digest([[r['id'], r['caption']] for r in rows])[:SHORT]}"
    pictures = config.build(cell, "pictures").load() if settings.images else None
    seen = None if pictures is None else lambda: pictures
    ended = score([Scorable(results, rows, seen)], plans, device, results)
    run = Submission(results, {"status": "ok", "row": {"run_id": name}}, given=tuple(rows))
    write_text(results / "samples.csv", samples_csv(run))
    table = scores_table([run], TRIALS)
    write_csv(table, results / "scores.csv")
    for one in plans:
        _report(one, table[table["protocol"] == one.protocol.name].set_index("metric"), ended, results)
    console.print(f"scores: {results / 'scores.csv'}; per sample: {results / 'samples.csv'}", markup=False)
    failed = sum(row["status"] != "ok" for row in rows)
    if failed:
        errors.print(
            f"capbench: {failed} of {len(rows)} references have no caption; they count as failed", markup=False
        )
    return 1 if failed or ended.failed else 0


def _report(one: Plan, table: pd.DataFrame, ended: Scoring, results: Path) -> None:
    """The values on the terminal and, where the protocol has an official form, as the organisers' scores.json."""
    console.print(f"protocol {one.protocol.name} (version {one.protocol.version}): {one.protocol.note}", markup=False)
    for name, row in table.iterrows():
        spread = f"{row['value']:.4f} [{row['ci_low']:.4f}, {row['ci_high']:.4f}]"
        coverage = ", ".join(f"{key[2:]} {row[key]}" for key in ("n_failed", "n_empty", "n_truncated") if row[key])
        value = spread if row["value"] == row["value"] else "blank"
        console.print(f"{name:12} {value}  n {row['n']}{', ' if coverage else ''}{coverage}", markup=False)
    for column in one.columns:
        if column.name in ended.blank:
            console.print(f"{column.name} is blank: {ended.blank[column.name]}", markup=False)
    if one.protocol.official:
        means = table["value"].to_dict()
        values = {
            key: None if means[name] != means[name] else means[name] for key, name in one.protocol.official.items()
        }
        path = results / f"scores-{one.protocol.name}.json"
        write_json(path, values)
        console.print(f"official form: {path}", markup=False)


def _rows(captions_file: str, references_file: str) -> list[dict[str, Any]]:
    """One row per reference; a reference without caption is a failed row, a caption without reference an error."""
    captions = read_captions(Path(captions_file), "captions")
    references = read_captions(Path(references_file), "references")
    unknown = [name for name in captions if name not in references]
    if unknown:
        raise RequestError(
            f"captions={captions_file}: {len(unknown)} ids are not in the references, first {unknown[0]}; "
            "both files must be of one split"
        )
    rows = []
    for name, reference in references.items():
        row: dict[str, Any] = {"id": name, "modality": UNKNOWN, "reference": reference}
        if name in captions:
            rows.append(row | {"status": "ok", "caption": captions[name]})
        else:
            rows.append(row | {"status": "failed", "caption": None, "error": "no caption in the file"})
    return rows
