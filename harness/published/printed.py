"""The published study's tables as printed, and what its averages would be.

Ten captioners on ROCOv2, Bioengineering 12(12):1330. Printed values stay as they are, what follows stands beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import pandas as pd

DOI = "10.3390/bioengineering12121330"
DATASET, SPLIT, SAMPLES = "rocov2", "test", 19_267
METRICS = ("similarity", "bertscore", "rouge", "bleurt", "umls_f1", "alignscore")
AVERAGES = ("relevance", "factuality", "overall")
SCORES = (*METRICS, *AVERAGES)
ROUNDING = 1e-3  # printed to 3 digits: half a digit for an average, and at most as much for the mean of its parts
EXACT = 1e-9  # what the arithmetic itself may be off by
INCONSISTENT = "inconsistent: "  # what the note of such an average begins with

Averages = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Finding:
    """A published average that is not the mean of the values printed beside it, in one or more configurations.

    cells: (configuration, printed, the mean of the printed parts).
    """

    model: str
    metric: str
    cells: tuple[tuple[str, float, float], ...]
    reason: str


def printed(name: str) -> pd.DataFrame:
    """A table of the study: leaderboard, modality_ablation, models, lora, modalities."""
    return pd.read_csv(str(resources.files("harness") / "published" / f"{name}.csv"))


def tables() -> dict[str, pd.DataFrame]:
    """The tables of scores, each with its configurations: the leaderboard has the base one."""
    return {
        "leaderboard": printed("leaderboard").assign(configuration="base"),
        "modality_ablation": printed("modality_ablation"),
    }


def recomputed(averages: Averages) -> pd.DataFrame:
    """Every printed score: table, model, configuration, metric, published, recomputed, difference, mean, note.

    recomputed: the averages by their definition, from the printed metrics all the way (blank for a metric); mean: of
    the parts as printed.
    """
    rows = [
        {"table": name, "model": row["model"], "configuration": row["configuration"], **cell}
        for name, table in tables().items()
        for row in table.to_dict("records")
        for cell in _cells(row, averages)
    ]
    return pd.DataFrame(rows)


def findings(averages: Averages) -> list[Finding]:
    """The averages that are not the mean of their printed parts, model by model."""
    table = recomputed(averages)
    wrong = table[table["note"].str.startswith(INCONSISTENT)].drop_duplicates(["model", "configuration", "metric"])
    found = []
    for (model, metric), part in wrong.groupby(["model", "metric"], sort=False):
        cells = part[["configuration", "published", "mean"]].itertuples(index=False, name=None)
        reasons = part["note"].str.removeprefix(INCONSISTENT).unique()
        found.append(Finding(str(model), str(metric), tuple(cells), "; ".join(reasons)))
    return found


def changes(averages: Averages) -> pd.DataFrame:
    """What the modality in the prompt changed, in percent of the base: model, metric, published, recomputed."""
    table = recomputed(averages).query("table == 'modality_ablation'").set_index(["configuration", "model", "metric"])
    values = table[["published"]].assign(recomputed=table["recomputed"].fillna(table["published"]))
    return (100 * (values.loc["modality"] / values.loc["base"] - 1)).reset_index()


def _cells(row: Mapping[Any, Any], averages: Averages) -> Iterator[dict[str, Any]]:
    for name in dict.fromkeys(part for parts in averages.values() for part in parts if part not in averages):
        yield {"metric": name, "published": row[name], "note": ""}
    full = dict(row)
    for name, parts in averages.items():
        full[name] = _mean(full, parts)
        cell = {"metric": name, "published": row[name], "recomputed": full[name], "difference": full[name] - row[name]}
        yield {**cell, "mean": _mean(row, parts), "note": _note(row, name, parts, full[name])}


def _note(row: Mapping[Any, Any], name: str, parts: Sequence[str], value: float) -> str:
    """Which mean a printed value is, where it is not the recomputed one."""
    if not _apart(row[name], _mean(row, parts)):
        return f"the mean of the printed {' and '.join(parts)}" if _apart(row[name], value) else ""
    for left_out in parts if len(parts) > 2 else ():
        if not _apart(row[name], _mean(row, [part for part in parts if part != left_out])):
            return f"{INCONSISTENT}the mean without {left_out}"
    return f"{INCONSISTENT}not the mean of the values printed beside it"


def _mean(row: Mapping[Any, Any], parts: Sequence[str]) -> float:
    return sum(float(row[part]) for part in parts) / len(parts)


def _apart(one: float, other: float) -> bool:
    """Whether two values differ by more than printing them to three digits explains."""
    return abs(one - other) > ROUNDING + EXACT
