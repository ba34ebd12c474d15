"""capbench compare: two runs over the same samples, with intervals and p-values.

usage: capbench compare A B [KEY=VALUE ...]

A and B are a run's folder, its name, its id or the beginning of one. Printed are the means of every metric, A - B with
a paired bootstrap interval and the p-value of a paired permutation test, and the samples that differ most. Nothing is
scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness import config
from harness.choices import meant, some
from harness.commands._options import parse, words
from harness.contracts import NonNegative, Positive, RequestError
from harness.machine.terminal import console, table
from harness.store import difference, file_to_write
from harness.store.runs import Run, find_run
from harness.store.scores import Array
from harness.tables import stats
from harness.tables.columns import SEED
from harness.tables.csv_files import write_csv
from harness.tables.formulas import Formula, formula, lower_is_better
from harness.tables.values import add_averages, protocol_values

NAMED = 5  # ids in a message
SAME = ("dataset", "split", "n_requested")  # what a difference of the samples is shown by


@dataclass(frozen=True)
class Settings:
    """The values of conf/compare.yaml."""

    results: str
    protocol: str | None
    metric: str | None
    top: NonNegative
    out: str | None
    trials: Positive
    permutations: Positive


@dataclass(frozen=True)
class Pairing:
    """Two runs under one protocol. values: of each sample, the columns that both have, NaN for a failure.

    statistics: [2, samples, of the columns], of which `formula` makes the columns. unfilled: column -> why it is none.
    """

    runs: tuple[Run, Run]
    protocol: Mapping[str, Any]
    values: tuple[pd.DataFrame, pd.DataFrame]
    formula: Formula
    statistics: Array
    unfilled: Mapping[str, str]

    @property
    def used(self) -> np.ndarray:
        """One denominator for all columns: the samples that have all of them in both runs."""
        both = [stats.complete(statistics) for statistics in self.statistics]
        return np.asarray(both[0] & both[1])


def main(argv: Sequence[str]) -> int:
    """Print how two runs differ."""
    names, options = words(parse("compare", argv).overrides)
    if len(names) != 2:
        raise RequestError(f"compare: expected two runs, A and B, got {len(names)}: {' '.join(names)}")
    settings: Settings = config.options("compare", options, Settings)
    out = file_to_write(settings.out, ".csv") if settings.out else None
    one, other = (find_run(Path(settings.results), name) for name in names)
    _same_samples(one, other)
    pairing = pair(one, other, settings.protocol)
    metric = _metric(pairing, settings.metric)
    means, samples = summary(pairing, settings.trials, settings.permutations), by_sample(pairing, metric)
    _print(pairing, means)
    _print_samples(samples.dropna(subset="difference").head(settings.top), metric)
    if out is not None:
        write_csv(samples, out)
        console.print(f"\nall samples: {out}")
    return 0


# ---------------------------------------------------------------- what is compared


def _same_samples(one: Run, other: Run) -> None:
    """Raises RequestError with what differs when the runs are not about the same samples."""
    for run in (one, other):
        if run.status == "failed":
            raise RequestError(f"{run.folder.name}: it failed and has no captions: {run.row.get('error')}")
    if one.manifest["identity"].get("data") == other.manifest["identity"].get("data"):
        return
    lines = difference({key: one.row.get(key) for key in SAME}, {key: other.row.get(key) for key in SAME})
    left, right = ({str(row.id): row for row in run.rows} for run in (one, other))
    common = left.keys() & right.keys()
    kinds = {
        "only in A": [name for name in left if name not in right],
        "only in B": [name for name in right if name not in left],
        "with another reference": [n for n in left if n in common and left[n].reference != right[n].reference],
    }
    lines += [f"{len(ids)} samples {kind}: {some(ids, NAMED)}" for kind, ids in kinds.items() if ids]
    found = "; ".join(lines) or "the ids and references are the same; the pictures, modalities or concepts are not"
    raise RequestError(f"{one.folder.name} and {other.folder.name}: expected runs over the same samples; {found}")


def pair(one: Run, other: Run, protocol: str | None) -> Pairing:
    """The columns that both runs have under a protocol. Raises RequestError when there is none."""
    common = [name for name in one.protocols if name in other.protocols]
    if protocol not in (None, *common) or not common:
        known = ", ".join(common) or "none; run `capbench score` first"
        raise RequestError(f"protocol={protocol}: expected one by which both are scored: {known}")
    records = [run.protocols[protocol or common[0]] for run in (one, other)]
    columns = [record["columns"] for record in records]
    reasons = {name: _obstacle(*(c.get(name, {}) for c in columns)) for name in {**columns[0], **columns[1]}}
    shown = [name for name, reason in reasons.items() if not reason]
    if not shown:
        raise RequestError(f"no metric to compare by: {'; '.join(f'{name}: {why}' for name, why in reasons.items())}")
    spec = records[0]["protocol"]
    made = formula({name: columns[0][name] for name in shown}, spec["averages"])
    values = [protocol_values(run, record)[shown] for run, record in zip((one, other), records, strict=True)]
    full = [add_averages(one, made.averages) for one in values]
    statistics = np.stack([made.read([run], spec["name"]) for run in (one, other)])
    unfilled = {name: why for name, why in reasons.items() if why}
    return Pairing((one, other), spec, (full[0], full[1]), made, statistics, unfilled)


def _obstacle(left: Mapping[str, Any], right: Mapping[str, Any]) -> str:
    """Why a column cannot be compared; empty when it can."""
    for name, column in (("A", left), ("B", right)):
        if "file" not in column:
            return f"{name} has no values: {column.get('missing', 'not scored')}"
    if left["signature"] == right["signature"] and left.get("combine") == right.get("combine"):
        return ""
    return f"other metrics: {left['signature']} and {right['signature']}; run `capbench score` again"


def _metric(pairing: Pairing, wanted: str | None) -> str:
    known = [str(name) for name in pairing.values[0].columns]
    if wanted is None:
        primary = str(pairing.protocol["primary"])
        return primary if primary in known else known[0]
    if wanted not in known:
        raise RequestError(f"metric={wanted}: expected one of {', '.join(known)}{meant(wanted, known)}")
    return wanted


# ---------------------------------------------------------------- tables


def summary(pairing: Pairing, trials: int, permutations: int) -> pd.DataFrame:
    """Per column: both means, A - B, its paired interval and p-value. Raises RequestError without a common sample."""
    made = pairing.formula
    statistics = made.with_averages(pairing.statistics[:, pairing.used])
    if not statistics.shape[1]:
        raise RequestError("no sample has a value of every metric in both runs")
    drawn = stats.resampled(statistics, trials, SEED, made)
    low, high = stats.interval(drawn[:, 0] - drawn[:, 1])
    a, b = made(statistics.mean(axis=1))
    p = stats.permutation(statistics, permutations, SEED, made)[0, 1]
    cells = {"metric": made.names, "a": a, "b": b, "difference": a - b, "ci_low": low, "ci_high": high, "p": p}
    return pd.DataFrame(cells)


def by_sample(pairing: Pairing, metric: str) -> pd.DataFrame:
    """Captions and scores of both runs side by side, the largest difference by a metric first, failures last."""
    left, right = (run.rows for run in pairing.runs)
    found = pd.DataFrame(
        {
            "id": [row.id for row in left],
            "modality": [row.modality for row in left],
            "reference": [row.reference for row in left],
            "caption_a": [row.caption for row in left],
            "caption_b": [row.caption for row in right],
            "difference": pairing.values[0][metric] - pairing.values[1][metric],
        }
    )
    for name in pairing.values[0].columns:
        found[f"{name}_a"], found[f"{name}_b"] = (values[name] for values in pairing.values)
    return found.sort_values("difference", key=np.abs, ascending=False, kind="stable", ignore_index=True)


# ---------------------------------------------------------------- output


def _print(pairing: Pairing, found: pd.DataFrame) -> None:
    for letter, run in zip("AB", pairing.runs, strict=True):
        console.print(f"{letter}: {run.folder.name}")
    used = pairing.used
    left_out = f"; {int((~used).sum())} that lack a value in A or B are left out" if not used.all() else ""
    console.print(f"protocol {pairing.protocol['name']}, {int(used.sum())} samples{left_out}")
    forms = ("{metric}", "{a:.4f}", "{b:.4f}", "{difference:+.4f}", "[{ci_low:+.4f}, {ci_high:+.4f}]", "{p:.4g}")
    rows = [[form.format_map(row) for form in forms] for row in found.to_dict("records")]
    table("", ("metric", "A", "B", "A - B", "95 % interval", "p"), rows, left=["metric"])
    lower = lower_is_better(pairing.formula.columns, pairing.formula.averages)
    if lower:
        names = (name for name in pairing.formula.names if name in lower)
        console.print(f"less is better, so that below 0 A is better: {', '.join(names)}")
    for name, reason in pairing.unfilled.items():
        console.print(f"{name} is blank: {reason}")


def _print_samples(samples: pd.DataFrame, metric: str) -> None:
    console.print(f"largest differences by {metric}:")
    for row in samples.to_dict("records"):
        values = f"A {row[f'{metric}_a']:.4f}, B {row[f'{metric}_b']:.4f}, A - B {row['difference']:+.4f}"
        console.print(f"\n{row['id']} ({row['modality']}): {values}")
        for label, text in (("reference", row["reference"]), ("A", row["caption_a"]), ("B", row["caption_b"])):
            console.print(f"  {label:9}  {text}")
