"""capbench score: score every run that lacks a metric, or captions=FILE against references=FILE.

usage: capbench score [--config-dir DIR] [KEY=VALUE ...]

Without files: scores every run in results=FOLDER that lacks a metric of protocol=NAME, then rebuilds the tables.
With files: captions=FILE references=FILE [images=DIR] results=FOLDER scores a submission; no run is needed.

Metrics to add by name: {metric}
Exit codes: 0 done; 1 a metric or a sample failed; 2 the request was wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import config
from harness.commands._options import parse
from harness.contracts import Positive, RequestError
from harness.machine.devices import pick_device
from harness.machine.terminal import console, errors
from harness.scoring.caption_files import CaptionFiles, paired_rows
from harness.scoring.protocol import pictures, scheme
from harness.scoring.score import Scheme, Scoring, score
from harness.store import SHORT, digest, make_folder, write_json, write_text
from harness.store.runs import find_runs
from harness.tables.csv_files import write_csv
from harness.tables.rebuild import finish, usual
from harness.tables.samples import samples_csv
from harness.tables.scores import scores_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Settings:
    """The root-level values of conf/score.yaml."""

    captions: str | None
    references: str | None
    images: str | None
    results: str
    device: str
    threads: Positive | None
    metrics: list[str]


def main(argv: Sequence[str]) -> int:
    """Score runs or files by one or several protocols and write the tables."""
    arguments = parse("score", argv)
    cells = config.cells("score", arguments.overrides, multirun=True, config_dir=arguments.config_dir)
    settings: Settings = config.settings(cells[0], Settings)
    schemes = [scheme(cell, arguments.config_dir) for cell in cells]
    device = pick_device(settings.device, settings.threads)
    if settings.captions or settings.references:
        return _score_files(settings, cells[0], schemes, device)
    runs = [run for run in find_runs(Path(settings.results)) if run.status != "failed"]
    if not runs:
        raise RequestError(f"results={settings.results}: no finished run to score; start with `capbench run`")
    ended = score(runs, schemes, device, Path(settings.results), pictures())
    finish(Path(settings.results), protocol=schemes[0].protocol.name)
    return 1 if ended.failed else 0


def _score_files(settings: Settings, cell: config.Cell, schemes: Sequence[Scheme], device: str) -> int:
    if not (settings.captions and settings.references):
        raise RequestError("captions=FILE and references=FILE belong together; one of them is missing")
    results = make_folder(Path(settings.results))
    if (results / "runs").is_dir():
        raise RequestError(
            f"results={results}: holds runs, whose tables would be overwritten; use another results=FOLDER"
        )
    rows = paired_rows(settings.captions, settings.references)
    name = f"{Path(settings.captions).stem}-{digest([[r.id, r.caption] for r in rows])[:SHORT]}"
    run = CaptionFiles(results, {"status": "ok", "row": {"run_id": name}}, given=tuple(rows))
    images = config.build(cell, "pictures").load() if settings.images else None
    ended = score([run], schemes, device, results, None if images is None else lambda _: images)
    write_text(results / "samples.csv", samples_csv(run))
    table = scores_table([run], usual()["trials"])
    write_csv(table, results / "scores.csv")
    for one in schemes:
        _report(one, table[table["protocol"] == one.protocol.name].set_index("metric"), ended, results)
    console.print(f"scores: {results / 'scores.csv'}; per sample: {results / 'samples.csv'}", markup=False)
    failed = sum(row.status != "ok" for row in rows)
    if failed:
        errors.print(
            f"capbench: {failed} of {len(rows)} references have no caption; they count as failed", markup=False
        )
    return 1 if failed or ended.failed else 0


def _report(one: Scheme, table: pd.DataFrame, ended: Scoring, results: Path) -> None:
    """The values on the terminal and, where the protocol has an official form, as the organisers' scores.json."""
    console.print(f"protocol {one.protocol.name} (version {one.protocol.version}): {one.protocol.note}", markup=False)
    for name, row in table.iterrows():
        spread = f"{row['value']:.4f} [{row['ci_low']:.4f}, {row['ci_high']:.4f}]"
        coverage = ", ".join(f"{key[2:]} {row[key]}" for key in ("n_failed", "n_empty", "n_truncated") if row[key])
        value = spread if row["value"] == row["value"] else "blank"
        console.print(f"{name:12} {value}  n {row['n']}{', ' if coverage else ''}{coverage}", markup=False)
    for column in one.columns:
        if column.name in ended.unfilled:
            console.print(f"{column.name} is blank: {ended.unfilled[column.name]}", markup=False)
    if one.protocol.official:
        means = table["value"].to_dict()
        values = {
            key: None if means[name] != means[name] else means[name] for key, name in one.protocol.official.items()
        }
        path = results / f"scores-{one.protocol.name}.json"
        write_json(path, values)
        console.print(f"official form: {path}", markup=False)
