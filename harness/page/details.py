"""The tables below the leaderboard: ablation, controls, costs, failures, and where everything comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
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
    whole,
    with_interval,
)
from harness.page.study import Study, mean_of
from harness.store.runs import Run
from harness.tables.columns import ROW_COLUMNS

SHOWN = 50  # failed samples that are named
COUNTS = {
    "n_requested": "samples of the split",
    "n_ok": "with a caption",
    "n_failed": "without one",
    "n_empty": "captions without a word",
    "n_truncated": "cut at the limit of tokens",
    "n_distinct": "different captions: few of them mean that a captioner says the same of everything",
}

Pairs = list[tuple[str, str]]


# ---------------------------------------------------------------- differences


def ablation(study: Study) -> list[Grid]:
    """What prompts and modality labels change: over all samples by average, then the ranking column by group."""
    table = study.tables.get("ablation")
    if table is None:
        return []
    over_all = table[(table["by"] == "all") & table["metric"].isin((*study.board.headlines, study.primary))]
    by_group = table[(table["by"] != "all") & (table["metric"] == study.primary)]
    grids = []
    if len(over_all):
        grids.append(_ablation("ablation", "Change against the base prompt over all samples", over_all, "metric"))
    for by in sorted(set(by_group["by"])):
        part = by_group[by_group["by"] == by]
        title = f"Change of {study.primary} by {'kind of label' if by == 'label' else by}"
        grids.append(_ablation(f"ablation-{by}", title, part, "group"))
    return grids


def _ablation(name: str, caption: str, table: pd.DataFrame, extra: str) -> Grid:
    columns = [Column("modality label" if key == "modality" else key, key, text) for key in (*ROW_COLUMNS, extra)]
    columns += [Column("base", "base", number), Column("with it", "value", number)]
    return _differences(name, caption, table, columns)


def controls(study: Study) -> list[Grid]:
    """What each row has over answers that need no captioner, by the ranking column."""
    table = study.beside("controls", metric=study.primary)
    if table.empty:
        return []
    table = table.assign(row=table["row"].map(study.label))
    columns = [Column("row", "row", text), Column("control", "control", text)]
    return [_differences("controls", f"What each row has over each control: {study.primary}", table, columns)]


def _differences(name: str, caption: str, table: pd.DataFrame, columns: Sequence[Column]) -> Grid:
    """A table of differences: what they are about, then each with its interval and how sure it is."""
    scale = scale_of(table["ci_low"], table["ci_high"], zero=True)

    def difference(row: Mapping[str, Any]) -> Cell:
        return with_interval(row["difference"], row["ci_low"], row["ci_high"], scale, sign=True)

    behind = [
        Column("difference", form=difference),
        Column("change %", "change_pct", partial(number, digits=1, sign=True)),
        Column("p", "p_holm", p_value, hint="corrected for the number of comparisons", ascending=True),
        Column("n", "n", whole),
    ]
    return grid(name, caption, [*columns, *behind], table.to_dict("records"))


# ---------------------------------------------------------------- costs


def costs(study: Study) -> Grid:
    """What each row took, the mean over its seeds."""
    columns = [
        Column("row", "label", text),
        Column("trained, million", "params_trained", _millions, hint="parameters", ascending=True),
        Column("of the weights %", "params_trained_pct", short, ascending=True),
        Column("fit", "train_seconds", duration, hint="time of one fit", ascending=True),
        Column("training samples/s", "train_samples_per_s", short),
        Column("captions", "generate_seconds", duration, hint="time for all captions", ascending=True),
        Column("captions/s", "captions_per_s", short),
        Column("memory", "peak_memory_bytes", size, hint="peak while captioning", ascending=True),
        Column("seeds", "seeds", whole),
        Column("device", "device", text),
    ]
    return grid("costs", "Costs of each row, the mean over its seeds", columns, (_costs(study, r) for r in study.rows))


def _costs(study: Study, row: Mapping[str, Any]) -> dict[str, Any]:
    runs = study.members(row)
    facts = ("params_trained", "params_trained_pct", "train_seconds", "train_samples_per_s", "generate_seconds")
    devices = sorted({str(run.row["device"]) for run in runs if run.row.get("device")})
    return {**row, **{name: mean_of(runs, name) for name in facts}, "device": ", ".join(devices)}


def _millions(count: float | None) -> Cell:
    return short(None if count is None else count / 1e6)


# ---------------------------------------------------------------- failures


def failures(study: Study) -> list[Grid]:
    """Runs that failed or are partial, captions that are missing, empty, cut or alike, rows of the data left out."""
    wrong = [run for run in study.board.runs if _noteworthy(run)]
    columns = [Column("row", "row", text), Column("seed", "seed", whole), Column("status", "status", text)]
    columns += [Column(name.removeprefix("n_"), name, whole, hint) for name, hint in COUNTS.items()]
    columns += [Column("reason", "error", text)]
    lost = [
        {"row": study.called[run.folder], "sample": row.id, "reason": row.error}
        for run in wrong
        if run.row.get("n_failed")
        for row in run.read()
        if row.status != "ok"
    ]
    rejected = {(str(one["id"]), str(one["reason"])) for run in study.board.runs for one in _rejected(run)}
    left_out = [{"sample": sample, "reason": reason} for sample, reason in sorted(rejected)]
    first = f"(the first {SHOWN} at most)"
    found = [
        grid("failures", "Runs with something to know", columns, [_facts(study, run) for run in wrong]),
        grid("lost", f"Samples without a caption {first}", _words("row", "sample", "reason"), lost[:SHOWN]),
        grid(
            "rejected",
            f"{len(left_out)} rows of the data left out {first}",
            _words("sample", "reason"),
            left_out[:SHOWN],
        ),
    ]
    return [one for one in found if one.bodies]


def _words(*keys: str) -> list[Column]:
    return [Column(key, key, text) for key in keys]


def _facts(study: Study, run: Run) -> dict[str, Any]:
    """What a run says of itself, with what its row is called."""
    stored = {key: run.manifest.get(key) for key in ("code_version", "config_hash")}
    return {**stored, **run.row, "row": study.called[run.folder], "status": run.status, "folder": run.folder.name}


def _noteworthy(run: Run) -> bool:
    bad = any(run.row.get(name) for name in ("n_failed", "n_empty", "n_truncated"))
    made, distinct = run.row.get("n_ok") or 0, run.row.get("n_distinct")
    return run.status != "ok" or bad or (isinstance(distinct, int) and distinct * 10 < made)


def _rejected(run: Run) -> Sequence[Mapping[str, Any]]:
    return run.manifest.get("rejected") or ()


# ---------------------------------------------------------------- provenance


def runs(study: Study) -> Grid:
    """The runs behind the rows, by which every number can be traced."""
    columns = [
        Column("row", "row", text),
        Column("run", "run_id", text),
        Column("fit", "fit_id", text),
        Column("seed", "seed", whole),
        Column("status", "status", text),
        Column("device", "device", text),
        Column("code", "code_version", text),
        Column("finished", "finished_at", text),
        Column("configuration", "config_hash", text),
        Column("folder", "folder", text),
    ]
    return grid("runs", "The runs behind the rows", columns, [_facts(study, run) for run in study.board.runs])


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
        for name, column in study.columns_of(run).items():
            signature = str(column.get("signature") or f"blank: {column.get('missing', 'not scored')}")
            if signature not in found.setdefault(name, []):
                found[name].append(signature)
    return [(name, signature) for name, signatures in found.items() for signature in signatures]


def _distinct(study: Study, name: str) -> list[str]:
    return sorted({str(run.manifest[name]) for run in study.board.runs if run.manifest.get(name)})


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
