"""Summary of a check, for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import numpy as np
import pandas as pd

from harness.contracts import SPLITS, Split
from harness.curation.problems import SEVERITY, Problem
from harness.machine.terminal import table

OTHER = "Other"
STYLE = {"error": "red", "warning": "yellow", "note": ""}


def show(name: str, splits: Sequence[Split], problems: Sequence[Problem]) -> None:
    """Rows, problems by kind, modalities beside the published ones, lengths of captions."""
    names = [split.name for split in splits]
    _print(f"dataset {name}", ("", *names), _rows(splits, problems))
    counts = Counter((p.kind, p.split) for p in problems)
    named = {p.split for p in problems}
    places = [name for name in (*SPLITS, "") if name in names or name in named]
    lines = [
        (k, s, *(str(counts[k, p] or "") for p in places))
        for k, s in SEVERITY.items()
        if any(counts[k, p] for p in places)
    ]
    if lines:
        _print("problems", ("kind", "severity", *(p or "no split" for p in places)), lines)
    _print("modalities, percent", ("", *names, "all", "published"), _modalities(splits))
    _print("captions", ("", *names), _lengths(splits))


def _rows(splits: Sequence[Split], problems: Sequence[Problem]) -> list[tuple[str, ...]]:
    rows = [
        ("samples", *(str(len(split.samples)) for split in splits)),
        ("rejected", *(str(len(split.rejected)) for split in splits)),
    ]
    for severity in STYLE:
        hit = [len({p.id for p in problems if p.split == s.name and p.severity == severity}) for s in splits]
        rows.append((f"rows with a {severity}" if severity != "error" else "rows with an error", *map(str, hit)))
    return rows


def _modalities(splits: Sequence[Split]) -> list[tuple[str, ...]]:
    """Shares by the names of the data; what the published table does not name is also its "Other"."""
    published = published_shares()
    counts = [Counter(sample.modality for sample in split.samples) for split in splits]
    every = sum(counts, Counter[str]())
    names = [n for n in published if n != OTHER] + sorted(n for n in every if n not in published and n != OTHER)
    rows = [
        (n, *(_share(c[n], c) for c in (*counts, every)), f"{published[n]:.1f}" if n in published else "")
        for n in names
    ]
    rest = [sum(c[n] for n in c if n not in published or n == OTHER) for c in (*counts, every)]
    shares = [_share(n, c) for n, c in zip(rest, (*counts, every), strict=True)]
    return [*rows, ("all but the first four", *shares, f"{published[OTHER]:.1f}")]


@cache
def published_shares() -> dict[str, float]:
    """Percent of ImageCLEFmedical Caption's 116,635 pictures, as the study gives them."""
    shares = pd.read_csv(str(files("harness") / "published" / "modalities.csv"))
    return {str(row["modality"]): float(row["percentage"]) for row in shares.to_dict("records")}


def _lengths(splits: Sequence[Split]) -> list[tuple[str, ...]]:
    words = [np.array([len(s.caption.split()) for s in split.samples] or [0]) for split in splits]
    distinct = [100 * len({s.caption for s in split.samples}) / max(1, len(split.samples)) for split in splits]
    return [
        ("words, mean", *(f"{w.mean():.1f}" for w in words)),
        ("standard deviation", *(f"{w.std():.1f}" for w in words)),
        ("quartiles", *("/".join(f"{q:.0f}" for q in np.percentile(w, (25, 50, 75))) for w in words)),
        ("least, most", *(f"{w.min()}, {w.max()}" for w in words)),
        ("one word", *(str(int((w == 1).sum())) for w in words)),
        ("distinct, percent", *(f"{d:.1f}" for d in distinct)),
    ]


def _share(count: int, counts: Counter[str]) -> str:
    return f"{100 * count / max(1, counts.total()):.1f}"


def _print(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table(
        title,
        columns,
        rows,
        left=("", "kind", "severity"),
        style=lambda row: next(filter(None, map(STYLE.get, row)), None),
    )
