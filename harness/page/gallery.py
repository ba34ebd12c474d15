"""Samples side by side: which ones, and what is shown of them, with pictures small enough for a page."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from harness import config
from harness.contracts import CapBenchError, ImageError, ImageSource, Split
from harness.page.study import Study, given
from harness.store.scores import Array
from harness.tables.values import add_averages, protocol_values

MOST = 40  # rows in the gallery
KINDS = ("best", "worst", "disagreed", "spread")
DIGITS = 4
SIDE = 256  # pixels of the longer side of a picture
QUALITY = 78


@dataclass(frozen=True)
class Chosen:
    """Places of samples in the order of the split, each with why it is there; mean and spread of all samples [n]."""

    places: Mapping[int, tuple[str, ...]]
    mean: Array
    spread: Array


def choose(values: Array, count: int) -> Chosen:
    """Best, worst and most disagreed samples of `values` [rows, samples] and some from all over the split.

    By mean and standard deviation over the rows. A quarter each; a sample may be there for several reasons. A sample
    without values can be among the evenly spread ones only. With one row nobody disagrees.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of samples that have no value in any row
        mean, spread = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    known = np.flatnonzero(~np.isnan(mean))
    total = values.shape[1]
    share = max(1, min(count, total) // 4)
    order = known[np.argsort(mean[known], kind="stable")]
    apart = known[np.argsort(-spread[known], kind="stable")]
    parts = [order[::-1][:share], order[:share], apart[spread[apart] > 0][:share]]
    found: dict[int, list[str]] = {}
    for kind, places in zip(KINDS, parts, strict=False):
        for place in places:
            found.setdefault(int(place), []).append(kind)
    rest = [place for place in _even(total, min(count, total)) if place not in found]
    for step in _even(len(rest), max(0, min(count - len(found), len(rest)))):
        found[rest[step]] = [KINDS[3]]
    return Chosen({place: tuple(found[place]) for place in sorted(found)}, mean, spread)


def _even(total: int, count: int) -> list[int]:
    """`count` different places from 0 to total - 1, evenly."""
    return [place * total // count for place in range(count)]


def gallery(study: Study, count: int) -> dict[str, Any] | None:
    """The samples as plain data, without pictures; None where nothing is ranked or nothing was asked for."""
    ranked = study.board.ranked
    if count < 1 or ranked is None:
        return None
    column = study.primary if study.primary in ranked.columns else ranked.columns[0]
    sign = -1 if column in ranked.lower else 1
    chosen = choose(study.values(column) * sign, count)
    scored = list({(row["name"], row["control"]): row for row in study.rows if study.scored(row)}.values())
    shown = scored[:MOST]
    captions, scores = zip(*(_row(study, row, chosen) for row in shown), strict=True)
    by_sample = zip(chosen.places, zip(*captions, strict=True), zip(*scores, strict=True), strict=True)
    return {
        "by": column,
        "total": len(study.samples),
        "rows": [{"label": row["label"], "model": row["model"], "control": row["control"]} for row in shown],
        "left_out": len(scored) - len(shown),
        "columns": list(study.measures),
        "lower": sorted(study.board.lower),
        "samples": [
            _sample(study, place, chosen, sign) | {"captions": list(made), "scores": list(values)}
            for place, made, values in by_sample
        ],
    }


def _row(study: Study, row: Mapping[str, Any], chosen: Chosen) -> tuple[list[str | None], list[list[float | None]]]:
    """Captions of one row, from its first seed, and the scores of just these captions, by sample."""
    run = study.scored(row)[0]
    places, record = list(chosen.places), run.protocols[study.board.key.protocol]
    captions = {made.id: made.caption for made in run.read()}
    averages = record["protocol"]["averages"]
    values = add_averages(protocol_values(run, record).iloc[places], averages).reindex(columns=list(study.measures))
    numbers = [[round(v, DIGITS) if given(v) else None for v in line] for line in values.to_numpy(float).tolist()]
    return [captions.get(study.samples[place].id) for place in places], numbers


def _sample(study: Study, place: int, chosen: Chosen, sign: int) -> dict[str, Any]:
    sample = study.samples[place]
    mean, spread = sign * float(chosen.mean[place]), float(chosen.spread[place])
    return {
        "id": str(sample.id),
        "modality": str(sample.modality),
        "concepts": [str(concept) for concept in sample.concepts or ()],
        "reference": str(sample.reference),
        "why": list(chosen.places[place]),
        "mean": round(mean, DIGITS) if mean == mean else None,
        "spread": round(spread, DIGITS) if spread == spread else None,
    }


# ---------------------------------------------------------------- pictures


def add_pictures(study: Study, shown: Mapping[str, Any]) -> str:
    """Put a picture to each sample of a gallery, from the dataset of the newest run; returns why some are missing."""
    assert study.board.ranked is not None
    run = study.board.ranked.newest
    node = (run.manifest.get("config") or {}).get("dataset")
    made, why = pictures(shown["samples"], lambda: config.build_node(node, "dataset").load(run.row["split"]))
    for sample in shown["samples"]:
        sample["picture"] = made.get(sample["id"])
    return why


def pictures(samples: Sequence[Mapping[str, Any]], load: Callable[[], Split]) -> tuple[dict[str, str], str]:
    """id -> data URI, and why pictures are missing; empty where none is.

    The data are those that the run names; where they are elsewhere or have changed, the page goes without them.
    """
    try:
        found = {sample.id: sample for sample in load().samples}
    except (CapBenchError, OSError, ImportError) as error:
        return {}, f"no pictures: the data of the runs cannot be read on this machine ({error})"
    made: dict[str, str] = {}
    problems: list[str] = []
    for row in samples:
        sample = found.get(row["id"])
        if sample is None or sample.caption != row["reference"]:
            problems.append(f"{row['id']} is not, or not the same, in the data on this machine")
            continue
        try:
            made[row["id"]] = thumbnail(sample.images[0])
        except (ImageError, OSError) as error:
            problems.append(f"{row['id']}: {error}")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return made, f"no picture of {problems[0]}{more}" if problems else ""


def thumbnail(source: ImageSource) -> str:
    """A data URI of the picture. Raises ImageError."""
    image = source.load()
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
