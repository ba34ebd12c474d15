"""capbench reproduce: a run once more from its stored configuration, compared caption by caption.

usage: capbench reproduce RUN [--config-dir DIR] [KEY=VALUE ...]

Runs the stored, resolved configuration of RUN again in another results folder and compares identity, captions (sample
by sample, exactly) and scores. Says before what of code, packages and platform has changed.
Exit codes: 0 reproduced; 1 not; 2 the request was wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from harness import config
from harness.cells import cell
from harness.cells.parts import build_parts
from harness.commands._options import parse, words
from harness.contracts import RequestError, ScoreProtocol
from harness.machine import provenance
from harness.machine.terminal import console, errors, listed
from harness.scoring.protocol import columns, pictures
from harness.scoring.score import Scheme, score
from harness.store import JournalRow, difference, make_folder, read_manifest
from harness.store.integrity import changed
from harness.store.runs import Run, find_run_or_fit
from harness.tables.values import protocol_values

SHOWN = 5  # differing captions


@dataclass(frozen=True)
class Settings:
    """The values of conf/reproduce.yaml."""

    results: str
    source: str
    device: str | None
    tolerance: Annotated[float, Ge(0)]


def main(argv: Sequence[str]) -> int:
    """Run it again and compare; 0 when captions and scores are the same."""
    arguments = parse("reproduce", argv)
    names, options = words(arguments.overrides)
    settings: Settings = config.options("reproduce", options, Settings)
    if len(names) != 1:
        raise RequestError(f"reproduce: expected one RUN (id, folder or prefix), got {len(names)}; see `capbench ls`")
    first = find_run_or_fit(Path(settings.source), names[0])
    one = stored_cell(first, Path(settings.results), settings.device)
    for line in surroundings(first):
        errors.print(f"not as it was: {line}")
    second = again(one, first, arguments.config_dir)
    return _report(first, second, settings.tolerance)


def stored_cell(run: Run, results: Path, device: str | None = None) -> config.Cell:
    """The cell that a manifest holds, resolved as it was, with another folder of results. Raises RequestError."""
    stored = run.manifest.get("config")
    if run.manifest.get("kind") != "run" or run.status == "failed" or not isinstance(stored, Mapping):
        reason = run.row.get("error") or "it is no run with captions and a stored configuration"
        raise RequestError(f"{run.folder}: cannot be reproduced ({reason}); name a finished run, see `capbench ls`")
    wrong = [f"{file} {what}" for file, what in changed(run)]
    if wrong:
        raise RequestError(f"{run.folder}: nothing to compare with: {wrong[0]}")
    if results.resolve() == run.folder.parent.parent.resolve():
        raise RequestError(f"results={results}: holds the run itself; give another folder for the repetition")
    changed_values = {"results": str(results)} | ({"device": device} if device else {})
    return config.Cell(run.folder.name, {}, {**stored, **changed_values})


def surroundings(run: Run) -> list[str]:
    """What of code, packages and platform is not as it was when the run was made."""
    now = {**provenance.environment(), "code_version": provenance.code_version()}
    then = {**(run.manifest.get("environment") or {}), "code_version": run.manifest.get("code_version")}
    return difference(then, now)


def again(one: config.Cell, first: Run, config_dir: str | None) -> Run:
    """Run the cell and score it by the protocols of the first run."""
    results = make_folder(Path(one.config["results"]))
    parts = build_parts(one, {})
    outcome = cell.run(parts)
    if not outcome.fresh:
        console.print(f"{outcome.folder}: done before; compared as it lies there")
    second = Run(outcome.folder, read_manifest(outcome.folder) or {})
    schemes = [_scheme(record, config_dir) for record in first.protocols.values()]
    if schemes:
        score([second], schemes, parts.device, results, pictures())
        second = Run(outcome.folder, second.manifest)  # with its scores
    return second


def _scheme(record: Mapping[str, Any], config_dir: str | None) -> Scheme:
    """The protocol as it was recorded, with the further metrics that were scored beside it."""
    protocol = ScoreProtocol(**record["protocol"])
    further = [name for name in record["columns"] if name not in protocol.columns]
    return Scheme(protocol, columns(protocol, further, config_dir))


def _report(first: Run, second: Run, tolerance: float) -> int:
    console.print(f"first  {first.folder}\nagain  {second.folder}")
    identity = difference(first.manifest.get("identity"), second.manifest.get("identity"))
    captions = other_captions(first, second)
    scores = other_scores(first, second)
    console.print(f"identity: {'the same' if not identity else 'another'}")
    for line in identity:
        console.print(f"  {line}")
    console.print(f"captions: {len(captions)} of {len(first.rows)} differ")
    listed([f"  {name}\n    first {a}\n    again {b}" for name, a, b in captions], SHOWN, "  and {} more")
    for line, largest in scores:
        if largest != 0:
            console.print(f"  {line}")
    wrong = sum(not largest <= tolerance for _, largest in scores)
    if scores:
        console.print(f"scores: {wrong} of {len(scores)} columns differ by more than {tolerance:g}")
    same = not (identity or captions or wrong)
    console.print("reproduced" if same else "not reproduced")
    return 0 if same else 1


def other_captions(first: Run, second: Run) -> list[tuple[str, str, str]]:
    """(id, caption, caption) of every sample that has not the same caption in both; a reason where there is none."""
    before, after = ({str(row.id): _said(row) for row in run.rows} for run in (first, second))
    absent = "(no such sample)"
    texts = [(name, before.get(name, absent), after.get(name, absent)) for name in {**before, **after}]
    return [(name, a, b) for name, a, b in texts if a != b]


def _said(row: JournalRow) -> str:
    return repr(row.caption) if row.status == "ok" else f"(failed: {row.error})"


def other_scores(first: Run, second: Run) -> list[tuple[str, float]]:
    """(line for people, largest difference of a sample; infinite where only one has a value) of every column."""
    found = []
    for protocol, record in first.protocols.items():
        before, after = (
            protocol_values(run, run.protocols[protocol]).set_axis([str(row.id) for row in run.rows])
            for run in (first, second)
        )
        for name in record["columns"]:
            a, b = before[name].align(after[name])
            apart = (a - b).abs().where(a.notna() | b.notna(), 0.0).fillna(float("inf"))
            means = f"{a.mean():.6f} -> {b.mean():.6f}"
            largest = float(apart.max())
            line = f"{protocol} {name}: {means}, {int((apart > 0).sum())} samples differ, by {largest:.2g} at most"
            found.append((line, largest))
    return found
