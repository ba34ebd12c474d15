"""capbench show: one run or fit: what it is, scores, costs, where it comes from.

usage: capbench show RUN [KEY=VALUE ...]

RUN is the id or folder of a run or fit, a prefix of either (fits/... for a fit), or a path to the folder. Printed are
status, counts, scores with intervals, costs, hashes, trained modules, command, code and package versions, files, and
how to reproduce it, from its files alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.filesize import decimal
from rich.table import Table

from harness import config
from harness.choices import GROUP_OF
from harness.commands._options import parse, words
from harness.contracts import CapBenchError, Positive, RequestError
from harness.machine.terminal import console
from harness.store import SHORT, Damaged, digest
from harness.store.integrity import changed, unreadable
from harness.store.inventory import disk_use, patterns, plain
from harness.store.runs import Run, find_run_or_fit, find_runs
from harness.tables.scores import scores_table

WHAT = ("model", "class", "weights", "strategy", "prompt", "modality", "control", "seed", "dataset", "split")
COUNTS = ("n_requested", "n_ok", "n_failed", "n_empty", "n_truncated", "n_distinct", "n_rejected", "n_train")
COSTS = (
    "train_seconds", "train_samples_per_s", "generate_seconds", "captions_per_s", "seconds", "samples", "steps",
    "captions_cut", "final_loss", "peak_memory_bytes", "started_at", "finished_at",
)  # fmt: skip

Rows = list[tuple[str, str]]
Section = tuple[str, Rows]


@dataclass(frozen=True)
class Settings:
    """The values of conf/show.yaml."""

    results: str
    trials: Positive


def main(argv: Sequence[str]) -> int:
    """Print one run or fit."""
    names, options = words(parse("show", argv).overrides)
    settings: Settings = config.options("show", options, Settings)
    if len(names) != 1:
        raise RequestError(f"show: expected one RUN (id, folder or prefix), got {len(names)}; see `capbench ls`")
    record = find_run_or_fit(Path(settings.results), names[0])
    console.print(f"{_kind(record)} {record.folder}")
    for title, rows in sections(record, settings.trials):
        _print(title, rows)
    return 0


def sections(record: Run, trials: int) -> list[Section]:
    """Everything as (title, [(name, value)]); empty sections are left out."""
    parts: list[Section] = [
        ("", _what(record)),
        ("not as it was written", _wrong(record)),
        ("counts", _facts(record.row, COUNTS)),
        *_scores(record, trials),
        ("costs", _facts(record.row, COSTS)),
        ("identity", _identity(record)),
        ("plan", _plan(record.manifest.get("plan") or {})),
        ("made by", _origin(record)),
        ("files", _files(record.folder)),
        ("again", _again(record)),
    ]
    return [(title, rows) for title, rows in parts if rows]


def _kind(record: Run) -> str:
    return str(record.manifest.get("kind") or record.folder.parent.name.rstrip("s"))


def _what(record: Run) -> Rows:
    """What it is. The row of a fit has no labels: they are in its configuration."""
    stored = record.manifest.get("config") or {}
    labels = {}
    for name in WHAT:
        node = stored.get(GROUP_OF.get(name, name))
        labels[name] = record.row.get(name, node.get("name") if isinstance(node, Mapping) else node)
    labels["class"] = record.row.get("class", (stored.get("model") or {}).get("kind"))
    if _kind(record) == "fit":  # trained on "train", whatever the split and the label at inference
        del labels["split"]
        if not stored.get("labels_in_training"):
            del labels["modality"]
    return _given({**labels, "status": record.status, "error": record.row.get("error")})


def _given(facts: Mapping[str, Any]) -> Rows:
    """The facts that are known, in one line each."""
    return [(name, plain(value)) for name, value in facts.items() if value not in (None, "")]


def _wrong(record: Run) -> Rows:
    try:
        return changed(record)
    except Damaged as error:
        return [unreadable(record, error)]


def _facts(row: Mapping[str, Any], names: Sequence[str]) -> Rows:
    shown = {name: row.get(name) for name in names}
    if shown.get("peak_memory_bytes") is not None:
        shown["peak_memory_bytes"] = decimal(int(row["peak_memory_bytes"]))
    return _given(shown)


def _scores(record: Run, trials: int) -> list[Section]:
    try:
        table = scores_table([record], trials)
    except CapBenchError as error:
        return [("scores", [("cannot be read", f"{error}; `capbench verify` says more")])]
    found: list[Section] = []
    for protocol, rows in table.groupby("protocol", sort=False):
        lines = []
        for row in rows.to_dict("records"):
            value = f"{row['value']:.4f} [{row['ci_low']:.4f}, {row['ci_high']:.4f}], n {row['n']}"
            lines.append((str(row["metric"]), f"blank: {row['signature']}" if pd.isna(row["value"]) else value))
        found.append((f"scores, protocol {protocol}", lines))
    return found


def _identity(record: Run) -> Rows:
    manifest = record.manifest
    identity = manifest.get("identity") or {}
    facts = {
        "run" if "fit" in identity else "fit": digest(identity),
        "its fit": identity.get("fit"),
        "data": identity.get("data"),
        "checkpoint": identity.get("checkpoint"),
        "variant (all seeds)": manifest.get("variant"),
        "configuration": manifest.get("config_hash"),
    }
    return _given(facts)


def _plan(plan: Mapping[str, Any]) -> Rows:
    """Counts per region, then the modules by pattern with how many layers have them."""
    if not plan or not plan["params_total"]:  # a control has none
        return []
    trained = sum(plan["counts"].values())
    total = plan["params_total"] + plan.get("params_added", 0)
    lines = [("parameters", f"{plan['params_total']:,}"), ("trained", f"{trained:,} ({100 * trained / total:.3f} %)")]
    lines += [(f"  {region}", f"{count:,}") for region, count in plan["counts"].items()]
    for name, title in (("adapted", "LoRA on"), ("trained", "in full")):
        lines += [(title, f"{module}{f' x {n}' if n > 1 else ''}") for module, n in patterns(plan[name]).items()]
    options = ", ".join(f"{key}={value}" for key, value in plan.get("options", {}).items())
    return [*lines, *([("options", options)] if options else [])]


def _origin(record: Run) -> Rows:
    manifest = record.manifest
    environment = manifest.get("environment") or {}
    packages = ", ".join(f"{name} {version}" for name, version in (environment.get("packages") or {}).items())
    facts = {
        "command": manifest.get("command"),
        "code": manifest.get("code_version"),
        "python": environment.get("python"),
        "platform": environment.get("platform"),
        "device": record.row.get("device", manifest.get("device")),
        "packages": packages,
    }
    return _given(facts)


def _files(folder: Path) -> Rows:
    names = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [(f"{path.name}/" if path.is_dir() else path.name, decimal(disk_use(path))) for path in names]


def _again(record: Run) -> Rows:
    results = record.folder.parent.parent
    if _kind(record) == "run":
        fit_id = str(record.row.get("fit_id", ""))
        fits = [path for path in (results / "fits").glob(f"*-{fit_id}") if fit_id]
        own = [("fit", str(fits[0]))] if fits else []
        stored = record.status != "failed" and "config" in record.manifest
        return [*own, *([("reproduce", f"capbench reproduce {record.folder}")] if stored else [])]
    key = digest(record.manifest["identity"])[:SHORT] if "identity" in record.manifest else ""
    return [("used by", str(run.folder)) for run in find_runs(results) if run.row.get("fit_id") == key]


def _print(title: str, rows: Sequence[tuple[str, str]]) -> None:
    if title:
        console.print(f"\n{title}", style="bold")
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(f"  {name}", value)
    console.print(table, soft_wrap=False)
