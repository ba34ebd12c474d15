"""From the files of the runs to tidy tables. The only file that knows column names; every step is table -> table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.lookup import pick
from harness.store import Damaged, Journal, find_folders, read_json, read_manifest, write_text
from harness.store.scores import ScoreFile, read_scores

Array = NDArray[np.float64]

RUN_COLUMNS = (
    "run_id", "fit_id", "dataset", "split", "n_requested", "n_ok", "n_failed", "n_empty", "n_truncated", "n_distinct",
    "model", "class", "weights", "strategy", "prompt", "modality", "seed", "params_total", "params_trained",
    "params_trained_pct", "train_seconds", "train_samples_per_s", "generate_seconds", "captions_per_s",
    "peak_memory_bytes", "device", "status", "error", "started_at", "finished_at", "config_hash", "code_version",
    "control",
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
    "rank_low", "rank_high", "n", "captions_per_s", "peak_memory_bytes", "control",
)  # fmt: skip
BOARD_COLUMNS = ("dataset", "split", "weights", "protocol", "data")
SIGNIFICANCE_COLUMNS = (
    *BOARD_COLUMNS, "metric", "family", "row_a", "row_b", "difference", "ci_low", "ci_high", "p", "p_holm", "n",
)  # fmt: skip
AGREEMENT_COLUMNS = (*BOARD_COLUMNS, "level", "metric_a", "metric_b", "spearman", "kendall", "rows", "n")
CONTROL_COLUMNS = (
    *BOARD_COLUMNS, "control", "row", "metric", "difference", "ci_low", "ci_high", "p", "p_holm", "n",
)  # fmt: skip
SUBGROUP_COLUMNS = (*BOARD_COLUMNS, "row", "metric", "by", "group", "n", "value", "ci_low", "ci_high")
ABLATION_COLUMNS = (
    *BOARD_COLUMNS, "model", "strategy", "prompt", "modality", "metric", "by", "group", "n", "base", "value",
    "difference", "change_pct", "ci_low", "ci_high", "p", "p_holm",
)  # fmt: skip
ROW_COLUMNS = ("model", "strategy", "prompt", "modality")  # what names a row of a leaderboard
TEXT_COLUMNS = {"caption", "caption_a", "caption_b", "reference", "error", "id"}
SEED = 12345  # of all resampling, as in sacrebleu: the same scores give the same intervals, everywhere
NAMED = 10  # runs in a message
FORMULA_START = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Run:
    """One folder below results/runs, as it is on the disk."""

    folder: Path
    manifest: Mapping[str, Any]
    kept: MutableMapping[str, bytes] | None = None  # of score files, see read_scores

    @property
    def status(self) -> str:
        """ok, partial or failed."""
        return str(self.manifest["status"])

    @cached_property
    def row(self) -> Mapping[str, Any]:
        """The manifest's facts for runs.csv."""
        row: Mapping[str, Any] = self.manifest["row"]
        return row

    def read(self) -> list[dict[str, Any]]:
        """The captions in the order of the split, read now; none for a run that failed."""
        return Journal(self.folder / "captions.jsonl").latest() if self.status != "failed" else []

    @property
    def control(self) -> str:
        """The control that speaks in it, "blank" for a captioner on grey pictures; empty for every other run."""
        return str(self.row.get("control") or "")

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The same, kept."""
        return self.read()

    @cached_property
    def protocols(self) -> dict[str, Mapping[str, Any]]:
        """Protocol name -> what `capbench score` recorded for this run; empty for a run that failed."""
        if self.status == "failed":
            return {}
        files = sorted((self.folder / "scores").glob("*.json"))
        return {path.stem: read_json(path) for path in files}

    @cached_property
    def _scores(self) -> dict[str, ScoreFile]:
        return {}

    def scores(self, column: Mapping[str, Any]) -> ScoreFile:
        """The file behind a scored column, read once. Raises Damaged."""
        name = str(column["file"])
        if name not in self._scores:
            self._scores[name] = read_scores(self.folder / "scores" / name, self.kept)
        return self._scores[name]

    def values(self, column: Mapping[str, Any]) -> Array:
        """Per-sample values of a scored column, NaN where there is none. Raises Damaged."""
        return self.scores(column).values[column["value"]]

    def truncated(self, column: Mapping[str, Any]) -> int:
        """How many pairs a metric could not read to the end; 0 for a metric without a limit."""
        counts = self.scores(column).values.get("truncated", np.zeros(0)) if "file" in column else np.zeros(0)
        return int((counts > 0).sum())


def find_runs(results: Path, kept: MutableMapping[str, bytes] | None = None) -> list[Run]:
    """All runs with a manifest, by folder name. A damaged manifest becomes a failed run with the reason."""
    runs = []
    for folder in find_folders(results / "runs"):
        try:
            manifest = read_manifest(folder)
        except Damaged as error:
            manifest = {"status": "failed", "row": {"run_id": folder.name.rpartition("-")[2], "error": str(error)}}
        if manifest is not None:
            runs.append(Run(folder, manifest, kept))
    return runs


def find_run(results: Path, text: str) -> Run:
    """The run of an id, folder name or unambiguous prefix; of a fit's id where one run has it. Raises RequestError."""
    manifest = read_manifest(Path(text)) if text else None
    if manifest:
        return Run(Path(text), manifest)
    runs = find_runs(results)
    own = [(name, run) for run in runs for name in (run.folder.name, run.folder.name.rpartition("-")[2])]
    return pick(text, [own, [(str(run.row.get("fit_id")), run) for run in runs]], lambda run: run.folder.name)


# ---------------------------------------------------------------- tables


def runs_table(runs: Iterable[Run]) -> pd.DataFrame:
    """runs.csv: one row per run."""
    extra = ("status", "code_version", "config_hash")
    rows = [{**{key: run.manifest.get(key) for key in extra}, **run.row, "status": run.status} for run in runs]
    return pd.DataFrame(rows, columns=list(RUN_COLUMNS)).sort_values("run_id", kind="stable", ignore_index=True)


def protocol_values(run: Run, record: Mapping[str, Any]) -> pd.DataFrame:
    """Per-sample values of a protocol's columns [samples, columns]; a column whose metric is missing is all NaN."""
    return pd.DataFrame(protocol_matrix(run, record), columns=list(record["columns"]))


def protocol_matrix(run: Run, record: Mapping[str, Any]) -> Array:
    """The same as numbers alone: [samples, columns]."""
    found = [run.values(c) if "file" in c else None for c in record["columns"].values()]
    length = next((len(values) for values in found if values is not None), None)
    blank = np.full(len(run.rows) if length is None else length, np.nan)
    return np.column_stack([blank if values is None else values for values in found])


def add_averages(values: pd.DataFrame, averages: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Append the composites, in order: the mean of the named columns, blank as soon as one of them is."""
    table = values.copy()
    for name, parts in averages.items():
        table[name] = table[list(parts)].mean(axis=1, skipna=False)
    return table


def mixture(names: Sequence[str], averages: Mapping[str, Sequence[str]]) -> Array:
    """The columns and their composites as combinations of the columns: [columns, columns and composites]."""
    return add_averages(pd.DataFrame(np.eye(len(names)), columns=list(names)), averages).to_numpy(float)


def stacked_averages(
    systems: Sequence[Array], names: Sequence[str], averages: Mapping[str, Sequence[str]]
) -> tuple[list[str], Array]:
    """Matrices [n, columns] of several systems with their composites: the names, and [systems, n, columns]."""
    table = add_averages(pd.DataFrame(np.concatenate(systems), columns=list(names)), averages)
    return list(table.columns), table.to_numpy(float).reshape(len(systems), -1, table.shape[1])


# ---------------------------------------------------------------- writing


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """UTF-8 csv, 6 significant digits, texts that a spreadsheet would run as a formula neutralised."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(zip(*(csv_cells(str(name), table[name]) for name in table), strict=True))
    write_text(path, buffer.getvalue())


def csv_cells(name: str, column: pd.Series[Any]) -> list[Any]:
    """A column as it stands in a csv file; nothing where there is no value."""
    if pd.api.types.is_float_dtype(column):
        return number_cells(column.to_numpy(float))
    return text_cells(name, column.astype(object).where(column.notna(), None).tolist())


def number_cells(values: Array) -> list[str]:
    """6 significant digits; empty for NaN."""
    return [f"{value:.6g}" if value == value else "" for value in values.tolist()]


def text_cells(name: str, cells: list[Any]) -> list[Any]:
    """As they are, which is empty for None; where people write what they want, as no spreadsheet runs it."""
    if name not in TEXT_COLUMNS:
        return cells
    return [f"'{c}" if isinstance(c, str) and c.startswith(FORMULA_START) else c for c in cells]


def missing_reasons(runs: Iterable[Run], protocol: str) -> dict[str, str]:
    """Column -> why it is blank, over runs scored under a protocol."""
    found: dict[str, str] = {}
    for run in runs:
        for name, column in run.protocols.get(protocol, {}).get("columns", {}).items():
            if "missing" in column:
                found[name] = column["missing"]
    return found
