"""capbench verify: every recorded hash against the files, and the tables against a rebuild.

usage: capbench verify [RUN ...] [KEY=VALUE ...]

Recomputes every recorded hash: identities and folder names, each caption's checksum and the file's digest, adapters,
scores and the captions they were made from; without RUN also the tables, by a rebuild elsewhere.
Exit codes: 0 all is as it was written; 1 something was edited or damaged: listed; 2 the request was wrong.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import config
from harness.commands._options import parse, with_runs, words
from harness.contracts import Positive
from harness.machine.terminal import bar, console, table
from harness.store import Damaged, busy, find_folders
from harness.store.integrity import Problem, changed, unreadable, unrecorded, wrong_captions, wrong_identity
from harness.store.runs import Run, find_fits, find_run_or_fit, find_runs, short_id
from harness.tables.rebuild import rebuild

TABLES = ("*.csv", "*.md", "*.tex")


@dataclass(frozen=True)
class Settings:
    """The values of conf/verify.yaml."""

    results: str
    tables: bool
    trials: Positive
    permutations: Positive


def main(argv: Sequence[str]) -> int:
    """Check the named records, or all and the tables; 1 when something is not what was written."""
    names, options = words(parse("verify", argv).overrides)
    settings: Settings = config.options("verify", options, Settings)
    results = Path(settings.results) if names else with_runs(settings.results, "fits")
    records = [find_run_or_fit(results, name) for name in names] or [*find_fits(results), *find_runs(results)]
    idle = [record for record in records if not busy(record.folder)]  # one that goes on has files ahead of its manifest
    problems = _all(idle)
    if not names and settings.tables:
        sound = all(not found for _, found in problems)
        problems.append((results, wrong_tables(results, settings.trials, settings.permutations) if sound else []))
        if not sound:
            console.print("the tables were not compared: what they are made from is not sound")
    count = _report(problems)
    rest = len(records) - len(idle) + (0 if names else _unfinished(results))
    note = f"; {rest} unfinished or in use, not looked at" if rest else ""
    console.print(f"{len(idle)} runs and fits verified, {count} problems{note}")
    return 1 if count else 0


def _unfinished(results: Path) -> int:
    folders = [folder for kind in ("fits", "runs") for folder in find_folders(results / kind)]
    return sum(not (folder / "manifest.json").is_file() for folder in folders)


def check(record: Run) -> list[Problem]:
    """Everything that is wrong with one run or fit."""
    problems = wrong_identity(record)
    if "identity" not in record.manifest or record.status == "failed":  # no captions and no scores that count
        return problems
    try:
        problems += changed(record)
        problems += unrecorded(record) if record.manifest.get("kind") == "fit" else wrong_captions(record)
    except Damaged as error:
        problems.append(unreadable(record, error))
    return problems


def wrong_tables(results: Path, trials: int, permutations: int) -> list[Problem]:
    """Derived files that a rebuild elsewhere, from links to the same runs, makes otherwise. One may be absent."""
    with tempfile.TemporaryDirectory(prefix="capbench-verify-") as name:
        copy = Path(name)
        for folder in find_folders(results / "runs"):
            _link(folder, copy / "runs" / folder.name)
        boards = rebuild(copy, trials, permutations)
        made = [path for pattern in TABLES for path in copy.glob(pattern)]
        made += copy.glob("runs/*/samples.csv")
        accepted = {path: [path.read_bytes()] for path in made}
        for path in made:  # `leaderboard dataset=...` chooses which of several tables is the plain one
            if path.stem == "leaderboard" and len(boards) > 1:
                accepted[path] += [other.read_bytes() for other in copy.glob(f"leaderboard-*{path.suffix}")]
        there = {path: results / path.relative_to(copy) for path in made}
        wrong = [own for path, own in there.items() if own.is_file() and own.read_bytes() not in accepted[path]]
    what = "is not what a rebuild makes of the runs; `capbench leaderboard` writes it anew"
    return [(str(path.relative_to(results)), what) for path in sorted(wrong)]


def _link(folder: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for name in ("manifest.json", "captions.jsonl", "scores"):
        if (folder / name).exists():
            (target / name).symlink_to((folder / name).resolve())


def _all(records: Sequence[Run]) -> list[tuple[Path, list[Problem]]]:
    found = []
    with bar("verify", len(records)) as advance:
        for record in records:
            found.append((record.folder, check(record)))
            advance(1)
    return [*found, *_twice(records)]


def _twice(records: Iterable[Run]) -> list[tuple[Path, list[Problem]]]:
    """Copies of a folder under another name: they would count as two."""
    first: dict[tuple[str, str], Path] = {}
    found = []
    for record in records:
        known = first.setdefault((record.folder.parent.name, short_id(record.folder)), record.folder)
        if known.resolve() != record.folder.resolve():
            found.append((record.folder, [("", f"has the identity of {known.name}; move one of them away")]))
    return found


def _report(problems: Sequence[tuple[Path, Sequence[Problem]]]) -> int:
    columns = ("where", "file", "what is wrong")
    rows = [("/".join(folder.parts[-2:]), *problem) for folder, found in problems for problem in found]
    if rows:
        table("", columns, rows, left=columns)
    return len(rows)
