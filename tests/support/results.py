"""Made-up results folders, and what their tables hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from harness.benchmarks.leaderboard import make_results
from harness.contracts import ScoreProtocol
from harness.store import file_digest, read_json, write_json, write_text
from harness.store.runs import find_runs
from harness.tables.columns import ROW_COLUMNS

EMBEDDED_COLUMNS = (  # of leaderboard.csv under the protocol `embedded`, as promised
    "rank", "model", "class", "strategy", "prompt", "modality", "seeds", "params_trained_pct",
    "similarity", "bertscore", "rouge", "bleurt", "umls_f1", "alignscore", "relevance", "relevance_ci_low",
    "relevance_ci_high", "factuality", "factuality_ci_low", "factuality_ci_high", "overall", "overall_ci_low",
    "overall_ci_high", "rank_low", "rank_high", "n", "captions_per_s", "peak_memory_bytes", "control",
)  # fmt: skip
PARTS = ["bertscore", "rouge", "similarity", "bleurt"]


def made_up(folder: Path, runs: int = 6, samples: int = 40, seeds: int = 1) -> Path:
    make_results(folder, runs, samples, seeds)
    return folder


def contents(results: Path) -> dict[str, bytes]:
    files = [*results.glob("*.csv"), *results.glob("*.md"), *results.glob("*.tex"), *results.glob("runs/*/samples.csv")]
    return {str(path.relative_to(results)): path.read_bytes() for path in files}


def as_control(folder: Path, name: str, seeing: str | None = None, options: Mapping[str, Any] | None = None) -> None:
    """Turn a made-up run into one of a control with some options, or into the blank run of another one."""
    manifest = read_json(folder / "manifest.json")
    own = {"model": name, "strategy": "none", "prompt": "none", "modality": "none", "seed": None}
    if seeing is not None:
        twin = read_json(folder.parent / seeing / "manifest.json")
        own = {key: twin["row"][key] for key in ROW_COLUMNS}
        manifest |= {"seeing": twin["variant"]}
    manifest["row"] |= {**own, "class": "control", "control": name}
    manifest["config"] |= {"dataset": {"name": "made-up"}, "control": {"name": name, **(options or {})}}
    write_json(folder / "manifest.json", manifest)


Values = Mapping[str, np.ndarray]
"""Value of a metric -> a number for each sample."""


def scored_by(
    results: Path,
    protocol: ScoreProtocol,
    entries: Mapping[str, Mapping[str, Any]],
    values: Callable[[int, str, int], Values],
) -> Path:
    """The runs scored by one protocol alone. entries: what a column's record says beside its file.

    values: (place of the run, column, samples) -> what its metric returned.
    """
    for place, run in enumerate(find_runs(results)):
        for old in (run.folder / "scores").iterdir():
            old.unlink()
        columns = {}
        for name, entry in entries.items():
            file = run.folder / "scores" / f"{name}-0.csv"
            write_text(file, _score_file([row.id for row in run.rows], values(place, name, len(run.rows))))
            facts = {"file": file.name, "sha256": file_digest(file), "signature": f"{name}|v=1"}
            columns[name] = {**facts, "value": name, "higher_is_better": True, **entry}
        record = {"protocol": asdict(protocol), "columns": columns, "texts": "0"}
        write_json(run.folder / "scores" / f"{protocol.name}.json", record)
    return results


def _score_file(ids: Sequence[str], values: Values) -> str:
    head = ",".join(("id", *values, "reason"))
    rows = zip(ids, *(column.tolist() for column in values.values()), strict=True)
    return "\n".join(
        [head, *(",".join((i, *("" if c != c else repr(c) for c in cells), "")) for i, *cells in rows), ""]
    )
