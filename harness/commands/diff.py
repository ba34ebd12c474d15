"""capbench diff: in what two runs, or two fits, differ.

usage: capbench diff A B [KEY=VALUE ...]

Everything in which they differ: identity, configuration, code, environment, trained modules, counts, captions, scores,
costs; then what is equal in one line. A and B as RUN in `capbench show`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import config
from harness.commands._options import parse, words
from harness.contracts import Positive, RequestError
from harness.machine.terminal import console, errors
from harness.store import difference, read_manifest
from harness.store.integrity import changed
from harness.store.inventory import patterns, plain
from harness.store.runs import Run, find_run_or_fit
from harness.tables.scores import scores_table

SECTIONS = (
    "status", "identity", "configuration", "code version", "environment", "counts", "plan", "captions", "scores",
    "files", "costs",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """The values of conf/diff.yaml."""

    results: str
    trials: Positive


def main(argv: Sequence[str]) -> int:
    """Print what differs, then what is equal in one line."""
    names, options = words(parse("diff", argv).overrides)
    settings: Settings = config.options("diff", options, Settings)
    if len(names) != 2:
        raise RequestError(f"diff: expected two names A and B of runs or fits, got {len(names)}; see `capbench ls`")
    left, right = (find_run_or_fit(Path(settings.results), name) for name in names)
    if left.folder.parent.name != right.folder.parent.name:
        kinds = " and ".join(str(record.folder.relative_to(record.folder.parent.parent)) for record in (left, right))
        raise RequestError(f"diff {' '.join(names)}: expected two runs or two fits, got {kinds}")
    console.print(f"A {left.folder}\nB {right.folder}")
    for record in (left, right):
        for file, what in changed(record):
            errors.print(f"{record.folder}: {file} {what}")
    found = compare(left, right, settings.trials)
    for title, lines in found.items():
        for line in [f"\n{title} (A -> B)", *(f"  {line}" for line in lines)] if lines else []:
            console.print(line)
    equal = [title for title, lines in found.items() if not lines]
    console.print(f"\nequal: {', '.join(equal) or 'nothing'}")
    return 0


def compare(left: Run, right: Run, trials: int) -> dict[str, list[str]]:
    """Section -> a line for every difference; an empty list where there is none."""
    a, b = _facts(left), _facts(right)
    found = {title: changes(a[title], b[title]) for title in a}
    found["identity"] = _identity(left, right)
    if any("strategy.plan" in line for line in found["identity"]):  # where it is part of both identities
        del found["plan"]
    if left.folder.parent.name == "runs":
        found |= {"captions": _captions(left, right), "scores": _scores(left, right, trials)}
    return {title: found[title] for title in SECTIONS if title in found}


def _facts(record: Run) -> dict[str, Any]:
    """What a run or fit says of itself, by section. The folder of results says nothing of a run."""
    manifest, row = record.manifest, record.row
    return {
        "status": {"status": record.status, "error": row.get("error")},
        "configuration": {key: value for key, value in (manifest.get("config") or {}).items() if key != "results"},
        "code version": {"code": manifest.get("code_version")},
        "environment": {**(manifest.get("environment") or {}), "device": row.get("device")},
        "counts": _numbers(row, counts=True),
        "plan": manifest.get("plan"),
        "files": manifest.get("files"),
        "costs": _numbers(row, counts=False),
    }


def _identity(left: Run, right: Run) -> list[str]:
    """Where both runs have a fit of their own, its identity stands in the place of its hash."""
    whole = [dict(record.manifest.get("identity") or {}) for record in (left, right)]
    fits = [_fit(record) for record in (left, right)]
    for identity, fit in zip(whole, fits, strict=True):
        if all(fits):
            identity["fit"] = fit
    return changes(*whole)


def _fit(run: Run) -> Any:
    """The identity of a run's fit; None where it has no folder."""
    fit_id = run.row.get("fit_id")
    found = sorted((run.folder.parent.parent / "fits").glob(f"*-{fit_id}")) if fit_id else []
    manifest = read_manifest(found[0]) if found else None
    return manifest["identity"] if manifest else None


def changes(left: Any, right: Any) -> list[str]:
    """As `difference`, but lists of names by what only one side has: modules differ in a few patterns."""
    return difference(*_without_common(left, right))


def _without_common(left: Any, right: Any) -> tuple[Any, Any]:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        pairs = {key: _without_common(left.get(key), right.get(key)) for key in {*left, *right}}
        return {key: pair[0] for key, pair in pairs.items()}, {key: pair[1] for key, pair in pairs.items()}
    if _names(left) and _names(right) and set(left) != set(right):
        return patterns(sorted(set(left) - set(right))), patterns(sorted(set(right) - set(left)))
    return left, right


def _names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def _numbers(row: Mapping[str, Any], *, counts: bool) -> dict[str, Any]:
    """The numbers of a row: n_... or the others. Labels and ids are compared elsewhere."""
    known = {"seed", "params_total", "params_trained", "params_trained_pct"}
    times = {"started_at", "finished_at"}
    return {
        key: float(plain(value)) if isinstance(value, float) else value
        for key, value in row.items()
        if key.startswith("n_") is counts and (key in times or (isinstance(value, (int, float)) and key not in known))
    }


def _captions(left: Run, right: Run) -> list[str]:
    a, b = ({row.id: (row.caption, row.reference) for row in run.rows} for run in (left, right))
    common = a.keys() & b.keys()
    counts = {
        f"of {len(common)} common samples have another caption": sum(a[key][0] != b[key][0] for key in common),
        f"of {len(common)} common samples have another reference": sum(a[key][1] != b[key][1] for key in common),
        "samples are in A only": len(a.keys() - b.keys()),
        "samples are in B only": len(b.keys() - a.keys()),
    }
    return [f"{count} {what}" for what, count in counts.items() if count]


def _scores(left: Run, right: Run, trials: int) -> list[str]:
    tables = (scores_table([run], trials) for run in (left, right))
    a, b = ({(row["protocol"], row["metric"]): row for row in table.to_dict("records")} for table in tables)
    lines = []
    for key in {**a, **b}:
        name, one, other = " ".join(key), a.get(key), b.get(key)
        if one is None or other is None:
            lines.append(f"{name}: {' -> '.join('none' if row is None else _interval(row) for row in (one, other))}")
            continue
        if _interval(one) != _interval(other):
            step = other["value"] - one["value"]
            lines.append(f"{name}: {_interval(one)} -> {_interval(other)} ({step:+.4f})")
        if one["signature"] != other["signature"]:
            lines.append(f"{name}, another metric: {one['signature']} -> {other['signature']}")
    return lines


def _interval(row: Mapping[Any, Any]) -> str:
    if row["value"] != row["value"]:
        return "blank"
    return f"{row['value']:.4f} [{row['ci_low']:.4f}, {row['ci_high']:.4f}] n {row['n']}"
