"""From the files of the runs to tidy tables. The only file that knows column names; every step is table -> table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness import stats
from harness.lookup import pick
from harness.store import Damaged, Journal, find_folders, read_json, read_manifest, write_text

RUN_COLUMNS = (
    "run_id", "fit_id", "dataset", "split", "n_requested", "n_ok", "n_failed", "n_empty", "n_truncated", "n_distinct",
    "model", "class", "weights", "strategy", "prompt", "modality", "seed", "params_total", "params_trained",
    "params_trained_pct", "train_seconds", "train_samples_per_s", "generate_seconds", "captions_per_s",
    "peak_memory_bytes", "device", "status", "error", "started_at", "finished_at", "config_hash", "code_version",
)  # fmt: skip
SCORE_COLUMNS = (
    "run_id", "protocol", "metric", "value", "ci_low", "ci_high", "n", "n_failed", "n_empty", "n_truncated",
    "higher_is_better", "signature",
)  # fmt: skip
SAMPLE_COLUMNS = ("id", "modality", "reference", "caption", "status")
METRIC_COLUMNS = ("similarity", "bertscore", "rouge", "bleurt", "umls_f1", "alignscore")
AVERAGES = ("relevance", "factuality", "overall")
LEADERBOARD_COLUMNS = (
    "rank", "model", "class", "strategy", "prompt", "modality", "seeds", "params_trained_pct", *METRIC_COLUMNS,
    *(name for average in AVERAGES for name in (average, f"{average}_ci_low", f"{average}_ci_high")),
    "rank_low", "rank_high", "n", "captions_per_s", "peak_memory_bytes",
)  # fmt: skip
TEXT_COLUMNS = {"caption", "reference", "error", "id"}
SEED = 12345  # of all resampling, as in sacrebleu: the same scores give the same intervals, everywhere
FORMULA_START = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Run:
    """One folder below results/runs, as it is on the disk."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def status(self) -> str:
        """ok, partial or failed."""
        return str(self.manifest["status"])

    @cached_property
    def row(self) -> Mapping[str, Any]:
        """The manifest's facts for runs.csv."""
        row: Mapping[str, Any] = self.manifest["row"]
        return row

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The captions in the order of the split; empty for a run that failed."""
        return Journal(self.folder / "captions.jsonl").latest() if self.status != "failed" else []

    @cached_property
    def protocols(self) -> dict[str, Mapping[str, Any]]:
        """Protocol name -> what `capbench score` recorded for this run; empty for a run that failed."""
        if self.status == "failed":
            return {}
        files = sorted((self.folder / "scores").glob("*.json"))
        return {path.stem: read_json(path) for path in files}

    def values(self, column: Mapping[str, Any]) -> np.ndarray:
        """Per-sample values of a scored column, NaN where there is none. Raises Damaged when the file is not there."""
        path = self.folder / "scores" / str(column["file"])
        if not path.is_file():
            raise Damaged(f"{path}: the scores are gone; run `capbench score` to make them again")
        values: np.ndarray = pd.read_csv(path, usecols=[column["value"]])[column["value"]].to_numpy(float)
        return values

    def truncated(self, column: Mapping[str, Any]) -> int:
        """How many pairs a metric could not read to the end; 0 for a metric without a limit."""
        if "file" not in column:
            return 0
        table = pd.read_csv(self.folder / "scores" / str(column["file"]))
        return int((table["truncated"] > 0).sum()) if "truncated" in table else 0


def find_runs(results: Path) -> list[Run]:
    """All runs with a manifest, by folder name. A damaged manifest becomes a failed run with the reason."""
    runs = []
    for folder in find_folders(results / "runs"):
        try:
            manifest = read_manifest(folder)
        except Damaged as error:
            manifest = {"status": "failed", "row": {"run_id": folder.name.rpartition("-")[2], "error": str(error)}}
        if manifest is not None:
            runs.append(Run(folder, manifest))
    return runs


def find_run(results: Path, text: str) -> Run:
    """The run of an id, folder name or unambiguous prefix; of a fit's id where one run has it. Raises RequestError."""
    runs = find_runs(results)
    own = [(name, run) for run in runs for name in (run.folder.name, run.folder.name.rpartition("-")[2])]
    return pick(text, [own, [(str(run.row.get("fit_id")), run) for run in runs]], lambda run: run.folder.name)


# ---------------------------------------------------------------- tables


def runs_table(runs: Iterable[Run]) -> pd.DataFrame:
    """runs.csv: one row per run."""
    extra = ("status", "code_version", "config_hash")
    rows = [{**{key: run.manifest.get(key) for key in extra}, **run.row, "status": run.status} for run in runs]
    return pd.DataFrame(rows, columns=list(RUN_COLUMNS)).sort_values("run_id", kind="stable", ignore_index=True)


def samples_table(run: Run) -> pd.DataFrame:
    """samples.csv of one run: one row per sample, then one column per metric of all its protocols."""
    table = pd.DataFrame(run.rows, columns=list(SAMPLE_COLUMNS))
    for record in run.protocols.values():
        for name, column in record["columns"].items():
            table[name] = run.values(column) if "file" in column else np.nan
    return table


def protocol_values(run: Run, record: Mapping[str, Any]) -> pd.DataFrame:
    """Per-sample values of a protocol's columns [samples, columns]; a column whose metric is missing is all NaN."""
    blank = np.full(len(run.rows), np.nan)
    return pd.DataFrame({n: run.values(c) if "file" in c else blank for n, c in record["columns"].items()})


def add_averages(values: pd.DataFrame, averages: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Append the composites, in order: the mean of the named columns, blank as soon as one of them is."""
    table = values.copy()
    for name, parts in averages.items():
        table[name] = table[list(parts)].mean(axis=1, skipna=False)
    return table


def common_rows(values: pd.DataFrame, present: Sequence[str]) -> np.ndarray:
    """One denominator for all columns of a table: the samples that have a value in every scored column."""
    return stats.complete(values[list(present)].to_numpy(float))


def scores_table(runs: Iterable[Run], trials: int) -> pd.DataFrame:
    """scores.csv: run x protocol x metric with a bootstrap interval."""
    rows = [
        row for run in runs for name, record in run.protocols.items() for row in _score_rows(run, name, record, trials)
    ]
    table = pd.DataFrame(rows, columns=list(SCORE_COLUMNS))
    return table.sort_values(["run_id", "protocol"], kind="stable", ignore_index=True)


def _score_rows(run: Run, protocol: str, record: Mapping[str, Any], trials: int) -> list[dict[str, Any]]:
    columns = record["columns"]
    values = protocol_values(run, record)
    present = [name for name, column in columns.items() if "file" in column]
    used = common_rows(values, present)
    table = add_averages(values[used], record["protocol"]["averages"])
    lows, highs = _intervals(table, trials)
    empty = sum(row["caption"] == "" for row in run.rows)
    rows = []
    for name in table.columns:
        column = columns.get(name, {})
        mean = table[name].mean() if len(table) else np.nan
        rows.append(
            {
                "run_id": run.row["run_id"],
                "protocol": protocol,
                "metric": name,
                "value": mean,
                "ci_low": lows[name],
                "ci_high": highs[name],
                "n": int(used.sum()),
                "n_failed": int((~used).sum()),
                "n_empty": empty,
                "n_truncated": run.truncated(column),
                "higher_is_better": column.get("higher_is_better", True),
                "signature": column.get("signature") or column.get("missing") or _average_signature(name, record),
            }
        )
    return rows


def _average_signature(name: str, record: Mapping[str, Any]) -> str:
    protocol = record["protocol"]
    return f"mean({','.join(protocol['averages'][name])})|protocol={protocol['name']}|v={protocol['version']}"


def _intervals(table: pd.DataFrame, trials: int) -> tuple[dict[str, float], dict[str, float]]:
    scored = [name for name in table.columns if table[name].notna().all() and len(table)]
    low, high = stats.interval(stats.bootstrap(table[scored].to_numpy(float), trials, SEED))
    blank = dict.fromkeys(table.columns, np.nan)
    return blank | dict(zip(scored, low, strict=True)), blank | dict(zip(scored, high, strict=True))


# ---------------------------------------------------------------- writing


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """UTF-8 csv, 6 significant digits, texts that a spreadsheet would run as a formula neutralised."""
    safe = table.copy()
    for name in TEXT_COLUMNS & set(safe.columns):
        safe[name] = safe[name].map(_neutral)
    write_text(path, safe.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def _neutral(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_START) else cell


def missing_reasons(runs: Iterable[Run], protocol: str) -> dict[str, str]:
    """Column -> why it is blank, over runs scored under a protocol."""
    found: dict[str, str] = {}
    for run in runs:
        for name, column in run.protocols.get(protocol, {}).get("columns", {}).items():
            if "missing" in column:
                found[name] = column["missing"]
    return found
