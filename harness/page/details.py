"""The tables below the leaderboard: ablation, controls, costs, failures, and where everything comes from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from harness.page.grid import (
    Cell,
    Column,
    Grid,
    duration,
    grid,
    number,
    p_value,
    scale_of,
    short,
    size,
    text,
    with_interval,
)
from harness.page.study import Study, mean_of
from harness.store.runs import Run

SHOWN = 50  # failed samples that are named
COUNTS = ("n_requested", "n_ok", "n_failed", "n_empty", "n_truncated", "n_distinct")

Pairs = list[tuple[str, str]]


# ---------------------------------------------------------------- differences


def ablation(study: Study) -> list[Grid]:
    """What prompts and modality labels change: over all samples by average, then the ranking column by group."""
    table = study.tables.get("ablation")
    if table is None:
        return []
    whole = table[(table["by"] == "all") & table["metric"].isin((*study.board.headlines, study.primary))]
    by_group = table[(table["by"] != "all") & (table["metric"] == study.primary)]
    grids = []
    if len(whole):
        grids.append(_ablation("ablation", "Change against the base prompt over all samples", whole, ("metric",)))
    for by in sorted(set(by_group["by"])):
        part = by_group[by_group["by"] == by]
        title = f"Change of {study.primary} by {'kind of label' if by == 'label' else by}"
        grids.append(_ablation(f"ablation-{by}", title, part, ("group",)))
    return grids


def _ablation(name: str, caption: str, table: pd.DataFrame, extra: Sequence[str]) -> Grid:
    texts = ("model", "strategy", "prompt", "modality", *extra)
    columns = [Column("modality label" if name == "modality" else name, number=False) for name in texts]
    columns += [Column("base"), Column("with it"), Column("difference"), Column("change %")]
    columns += [Column("p", ascending=True, hint="corrected for the number of comparisons"), Column("n")]
    scale = scale_of(table["ci_low"], table["ci_high"], zero=True)
    rows = [
        [
            *(text(row[column]) for column in texts),
            number(row["base"]),
            number(row["value"]),
            with_interval(row["difference"], row["ci_low"], row["ci_high"], scale, sign=True),
            number(row["change_pct"], 1, sign=True),
            p_value(row["p_holm"]),
            number(row["n"], 0),
        ]
        for row in table.to_dict("records")
    ]
    return grid(name, caption, columns, rows)


def controls(study: Study) -> list[Grid]:
    """What each row has over answers that need no captioner, by the ranking column."""
    table = study.tables.get("controls")
    if table is None or not len(table[table["metric"] == study.primary]):
        return []
    table = table[table["metric"] == study.primary]
    columns = [Column("row", number=False), Column("control", number=False), Column("difference")]
    columns += [Column("p", ascending=True, hint="corrected for the number of comparisons"), Column("n")]
    scale = scale_of(table["ci_low"], table["ci_high"], zero=True)
    rows = [
        [
            text(study.label(row["row"])),
            text(row["control"]),
            with_interval(row["difference"], row["ci_low"], row["ci_high"], scale, sign=True),
            p_value(row["p_holm"]),
            number(row["n"], 0),
        ]
        for row in table.to_dict("records")
    ]
    return [grid("controls", f"What each row has over each control: {study.primary}", columns, rows)]


# ---------------------------------------------------------------- costs


def costs(study: Study) -> Grid:
    """What each row took, the mean over its seeds."""
    columns = [Column("row", number=False), Column("trained, million", ascending=True, hint="parameters")]
    columns += [Column("of the weights %", ascending=True), Column("fit", ascending=True, hint="time of one fit")]
    columns += [Column("training samples/s"), Column("captions", ascending=True, hint="time for all captions")]
    columns += [Column("captions/s"), Column("memory", ascending=True, hint="peak while captioning")]
    columns += [Column("seeds"), Column("device", number=False)]
    return grid("costs", "Costs of each row, the mean over its seeds", columns, (_costs(study, r) for r in study.rows))


def _costs(study: Study, row: Mapping[str, Any]) -> list[Cell]:
    runs = study.members(row)
    facts = ("params_trained", "params_trained_pct", "train_seconds", "train_samples_per_s", "generate_seconds")
    trained, share, fit, speed, made = (mean_of(runs, name) for name in facts)
    return [
        text(row["label"]),
        short(None if trained is None else trained / 1e6),
        short(share),
        duration(fit),
        short(speed),
        duration(made),
        short(row["captions_per_s"]),
        size(row["peak_memory_bytes"]),
        number(row["seeds"], 0),
        text(", ".join(sorted({str(run.row["device"]) for run in runs if run.row.get("device")}))),
    ]


# ---------------------------------------------------------------- failures


def failures(study: Study) -> list[Grid]:
    """Runs that failed or are partial, captions that are missing, empty, cut or alike, rows of the data left out."""
    wrong = [run for run in study.board.runs if _noteworthy(run)]
    columns = [Column("row", number=False), Column("seed"), Column("status", number=False)]
    columns += [Column(name.removeprefix("n_"), hint=hint) for name, hint in zip(COUNTS, _HINTS, strict=True)]
    columns += [Column("reason", number=False)]
    rows = [
        [
            text(study.called.get(run.folder, run.folder.name)),
            number(run.row.get("seed"), 0),
            text(run.status),
            *(number(run.row.get(name), 0) for name in COUNTS),
            text(run.row.get("error")),
        ]
        for run in wrong
    ]
    found = [grid("failures", "Runs with something to know", columns, rows)] if rows else []
    lost = [_lost(study, run) for run in wrong if run.row.get("n_failed") and run.status != "failed"]
    named = [cells for part in lost for cells in part][:SHOWN]
    if named:
        titles = [Column(title, number=False) for title in ("row", "sample", "reason")]
        found.append(grid("lost", f"Samples without a caption (the first {SHOWN} at most)", titles, named))
    rejected = {(str(entry["id"]), str(entry["reason"])) for run in study.board.runs for entry in _rejected(run)}
    if rejected:
        titles = [Column("sample", number=False), Column("reason", number=False)]
        cells = [list(map(text, pair)) for pair in sorted(rejected)[:SHOWN]]
        found.append(
            grid("rejected", f"{len(rejected)} rows of the data left out (the first {SHOWN} at most)", titles, cells)
        )
    return found


_HINTS = (
    "samples of the split",
    "with a caption",
    "without one",
    "captions without a word",
    "cut at the limit of tokens",
    "different captions: few of them mean that a captioner says the same of everything",
)


def _noteworthy(run: Run) -> bool:
    bad = any(run.row.get(name) for name in ("n_failed", "n_empty", "n_truncated"))
    made, distinct = run.row.get("n_ok") or 0, run.row.get("n_distinct")
    return run.status != "ok" or bad or (isinstance(distinct, int) and distinct * 10 < made)


def _lost(study: Study, run: Run) -> list[list[Cell]]:
    failed = [row for row in run.read() if row.status != "ok"][:SHOWN]
    label = study.called.get(run.folder, run.folder.name)
    return [[text(label), text(row.id), text(row.error)] for row in failed]


def _rejected(run: Run) -> Iterable[Mapping[str, Any]]:
    return run.manifest.get("rejected") or ()


# ---------------------------------------------------------------- provenance


def runs(study: Study) -> Grid:
    """The runs behind the rows, by which every number can be traced."""
    columns = [Column(title, number=False) for title in ("row", "run", "fit")] + [Column("seed")]
    columns += [
        Column(title, number=False) for title in ("status", "device", "code", "finished", "configuration", "folder")
    ]
    rows = [
        [
            text(study.called.get(run.folder)),
            text(run.row.get("run_id")),
            text(run.row.get("fit_id")),
            number(run.row.get("seed"), 0),
            text(run.status),
            text(run.row.get("device")),
            text(run.manifest.get("code_version")),
            text(run.row.get("finished_at")),
            text(run.manifest.get("config_hash")),
            text(run.folder.name),
        ]
        for run in study.board.runs
    ]
    return grid("runs", "The runs behind the rows", columns, rows)


def origin(study: Study) -> list[tuple[str, Pairs]]:
    """Data, metrics, commands and environment in words; groups without anything are left out."""
    key = study.board.key
    protocol = f"{key.protocol}, version {study.board.protocol['version']}"
    newest = max(study.board.runs, key=lambda run: str(run.row.get("finished_at") or ""))
    node = (newest.manifest.get("config") or {}).get("dataset") or {}
    data = [("dataset", key.dataset), ("split", key.split), ("fingerprint", key.data), ("weights", key.weights)]
    data += [(f"dataset.{name}", _plain(value)) for name, value in node.items()]
    environment = newest.manifest.get("environment") or {}
    machine = [(name, str(environment[name])) for name in ("python", "platform") if name in environment]
    packages = [(str(name), str(version)) for name, version in (environment.get("packages") or {}).items()]
    parts = [
        ("Data", data),
        ("Metrics", [("protocol", protocol), *_signatures(study)]),
        ("Commands", [("", command) for command in _distinct(study, "command")]),
        ("Environment of the newest run", [("code", ", ".join(_distinct(study, "code_version"))), *machine, *packages]),
    ]
    return [(title, pairs) for title, pairs in parts if pairs]


def _signatures(study: Study) -> Pairs:
    found: dict[str, list[str]] = {}
    for run in study.board.runs:
        for name, column in run.protocols.get(study.board.key.protocol, {}).get("columns", {}).items():
            signature = str(column.get("signature") or f"blank: {column.get('missing', 'not scored')}")
            if signature not in found.setdefault(name, []):
                found[name].append(signature)
    return [(name, signature) for name, signatures in found.items() for signature in signatures]


def _distinct(study: Study, name: str) -> list[str]:
    return sorted({str(run.manifest[name]) for run in study.board.runs if run.manifest.get(name)})


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
