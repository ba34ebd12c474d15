"""The plots of a report: what a score costs, and where captioners do well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from harness.page.figures import DARK, INK, LIGHT, PALETTE, PAPER, Plot, blank, plain
from harness.page.study import Study, given
from harness.tables import stats
from harness.tables.boards import Ranked
from harness.tables.columns import SEED

MARKERS = ("o", "s", "p", "D", "h", "8")  # all with room for a number
CLASSES = ("LVLM", "SVLM", "baseline", "control")
LINES = len(PALETTE)  # rows drawn as lines: more would not be told apart
BINS = 6  # of the lengths of references
MANY = 5  # concepts: this many and more are one group, as in subgroups.csv
CELLS = 40  # rows of a heat map
EFFICIENCY = {
    "params_trained_pct": ("trained", "Score and trained share", "share of the weights that were trained, %"),
    "peak_memory_bytes": ("memory", "Score and memory", "peak memory while captioning, GB"),
    "captions_per_s": ("speed", "Score and speed", "captions per second"),
}


def plots(study: Study) -> Iterator[Plot]:
    """All that the tables have something for."""
    for column in EFFICIENCY:
        yield from efficiency(study, column)
    yield from complexity(study)
    yield from modality(study)
    for level in ("system", "sample"):
        yield from agreement(study, level)


# ---------------------------------------------------------------- efficiency


def efficiency(study: Study, column: str) -> Iterator[Plot]:
    """The ranking column against one cost; a point is a row, its number the rank, its line the interval."""
    rows = [row for row in study.ranked if given(row[column]) and (row[column] > 0 or column == "params_trained_pct")]
    if len(rows) < 2:
        return
    name, title, label = EFFICIENCY[column]
    scale = 1e9 if column == "peak_memory_bytes" else 1
    figure, axes = blank(4.6, 3.7)
    kinds = [kind for kind in CLASSES if any(row["class"] == kind for row in rows)]
    kinds += sorted({str(row["class"]) for row in rows} - set(kinds))
    for place, kind in enumerate(kinds):
        own = [row for row in rows if row["class"] == kind]
        _points(axes, study.primary, own, [row[column] / scale for row in own], place, kind)
    _cost_scale(axes, [row[column] / scale for row in rows])
    axes.set(title=title, xlabel=label, ylabel=_axis(study))
    axes.grid(visible=True, linewidth=0.6)
    if len(kinds) > 1:
        axes.legend(fontsize=8, ncols=len(kinds), loc="upper center", bbox_to_anchor=(0.5, -0.2), handletextpad=0.2)
    table = pd.DataFrame(
        {"rank": r["rank"], "row": r["label"], label: r[column] / scale, study.primary: r[study.primary]} for r in rows
    )
    best = rows[0]
    text = (
        f"Each point is a row of the leaderboard, its number is its rank, the line its 95 % interval. The best, "
        f"{best['label']}, has {best[study.primary]:.3f} at {best[column] / scale:.3g} ({label})."
    )
    yield Plot("efficiency", f"efficiency_{name}", title, text, table, figure)


def _axis(study: Study) -> str:
    return f"{study.primary} (less is better)" if study.primary in study.board.lower else study.primary


def _points(
    axes: Axes, primary: str, rows: Sequence[Mapping[str, Any]], costs: Sequence[float], place: int, kind: str
) -> None:
    colour = PALETTE[place % len(PALETTE)]
    values = [row[primary] for row in rows]
    bounds = [[row.get(f"{primary}_ci_{end}", row[primary]) for row in rows] for end in ("low", "high")]
    axes.vlines(costs, bounds[0], bounds[1], color=colour, linewidth=1.2, alpha=0.6)
    outline: dict[str, Any] = {"edgecolors": PAPER, "linewidths": 0.8, "zorder": 3}
    axes.scatter(costs, values, s=150, marker=MARKERS[place % len(MARKERS)], color=colour, label=plain(kind), **outline)
    for row, cost, value in zip(rows, costs, values, strict=True):
        number = f"{row['rank']:.0f}"
        axes.text(cost, value, number, ha="center", va="center", fontsize=6.5, color=PAPER, weight="bold", zorder=4)


def _cost_scale(axes: Axes, costs: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers; zero-shot rows have trained nothing, so that it may start at 0."""
    positive = [cost for cost in costs if cost > 0]
    if len(positive) < len(costs):
        axes.set_xscale("symlog", linthresh=min([*positive, 1.0]), linscale=0.5)
        axes.set_xlim(left=-0.15 * min([*positive, 1.0]))
    elif max(costs) > 3 * min(costs):
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda _value, _place: "")
    axes.margins(x=0.08)


# ---------------------------------------------------------------- complexity


def complexity(study: Study) -> Iterator[Plot]:
    """The ranking column by length of the reference and by its number of concepts, for the best rows."""
    if study.board.ranked is None:
        return
    words = np.array([len(str(sample.reference).split()) for sample in study.samples])
    yield from _lines(
        study, "caption_length", "Score by length of the reference", "words in the reference", _bins(words)
    )
    if study.samples and all(sample.concepts is not None for sample in study.samples):
        counts = np.array([len(sample.concepts or ()) for sample in study.samples])
        groups = {f"{n}+" if n == MANY else str(n): (float(n), _at(counts, n)) for n in range(MANY + 1)}
        label = "medical concepts in the reference"
        yield from _lines(study, "concepts", "Score by number of concepts", label, groups)


Groups = Mapping[str, tuple[float, NDArray[np.bool_]]]
"""Name of a group of samples -> where it lies on the axis, and which samples [n]."""


def _bins(words: NDArray[np.int64]) -> Groups:
    """Lengths in groups of about the same number of samples; equal lengths stay together."""
    edges = np.unique(np.quantile(words, np.linspace(0, 1, BINS + 1)[1:], method="lower")) if len(words) else words
    place = np.searchsorted(edges, words, side="left")
    masks = [place == group for group in range(len(edges)) if (place == group).any()]
    return {f"{words[mask].min()}–{words[mask].max()}": (float(np.median(words[mask])), mask) for mask in masks}


def _at(counts: NDArray[np.int64], number: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = counts >= number if number == MANY else counts == number
    return found


def _lines(study: Study, name: str, title: str, label: str, groups: Groups) -> Iterator[Plot]:
    ranked = study.board.ranked
    assert ranked is not None
    known, column = ranked.used, ranked.columns.index(study.primary)
    groups = {group: (at, mask & known) for group, (at, mask) in groups.items() if (mask & known).sum() > 1}
    if len(groups) < 2:
        return
    rows = [ranked.rows.index(row["name"]) for row in study.ranked if row["name"] in ranked.rows][:LINES]
    figure, axes = blank(5.6, 3.9)
    at = np.array([place for place, _ in groups.values()])
    table = pd.DataFrame({label: list(groups), "samples": [int(mask.sum()) for _, mask in groups.values()]})
    step = (at.max() - at.min()) / 100
    for order, row in enumerate(rows):
        found = [_interval(ranked, row, mask[known], column) for _, mask in groups.values()]
        mean, low, high = np.array(found).T
        error = np.stack([mean - low, high - mean]).clip(min=0)
        shown = plain(study.label(ranked.rows[row]))
        shifted = at + (order - (len(rows) - 1) / 2) * step  # intervals side by side
        style: dict[str, Any] = {"color": PALETTE[order], "marker": MARKERS[order], "markersize": 4.5, "linewidth": 1.3}
        axes.errorbar(shifted, mean, error, label=shown, elinewidth=0.8, capsize=2, **style)
        table[shown] = mean
    axes.set(title=title, xlabel=label, ylabel=_axis(study))
    axes.set_xticks(at, list(groups))
    axes.grid(visible=True, axis="y", linewidth=0.6)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    over = f"over {int(known.sum())} samples in {len(groups)} groups"
    text = f"{title} for the best {len(rows)} rows: means with 95 % intervals {over}."
    yield Plot("complexity", name, title, text, table, figure)


def _interval(ranked: Ranked, row: int, mask: NDArray[np.bool_], column: int) -> tuple[float, float, float]:
    """A row's value over some of the samples, and its 95 % bootstrap interval."""
    statistics = ranked.statistics[[row]][:, mask]
    low, high = stats.interval(stats.resampled(statistics, len(ranked.resampled), SEED, ranked.formula))
    return ranked.formula(statistics.mean(axis=1))[0, column], low[0, column], high[0, column]


# ---------------------------------------------------------------- heat maps


def modality(study: Study) -> Iterator[Plot]:
    """The ranking column of each row by kind of picture."""
    own = study.beside("subgroups", by="modality", metric=study.primary)
    names = [row["name"] for row in study.ranked if row["name"] in set(own.get("row", ()))][:CELLS]
    if not names:
        return
    wide = own.pivot_table(index="row", columns="group", values="value").reindex(names)
    counts = own.drop_duplicates("group").set_index("group")["n"]
    wide.columns = pd.Index([plain(f"{group} ({counts[group]:,})") for group in wide.columns])
    wide.index = pd.Index([plain(study.label(name)) for name in names])
    title = f"{study.primary} by modality (samples)".capitalize()
    lower = study.primary in study.board.lower
    limits = (float(np.nanmin(wide)), float(np.nanmax(wide)))
    figure = _heat(wide, title, "cividis_r" if lower else "cividis", limits)
    bright = "lower, which is better" if lower else "higher"
    text = f"{study.primary} of {len(names)} rows for each of {wide.shape[1]} modalities; brighter is {bright}."
    yield Plot("modality", "modality", title, text, wide.reset_index(names="row"), figure, wide=True)


def agreement(study: Study, level: str) -> Iterator[Plot]:
    """Spearman's correlation of all pairs of metrics."""
    own = study.beside("agreement", level=level)
    if own.empty or own["spearman"].isna().all():
        return
    names = list(dict.fromkeys((*own["metric_a"], *own["metric_b"])))
    values = np.eye(len(names))
    for a, b, value in zip(own["metric_a"], own["metric_b"], own["spearman"], strict=True):
        one, other = names.index(a), names.index(b)
        values[one, other] = values[other, one] = value
    square = pd.DataFrame(values, index=names, columns=names)
    over = "over the rows" if level == "system" else "over the samples"
    title = f"Agreement of metrics {over}"
    figure = _heat(square, title, "PuOr_r", (-1.0, 1.0))
    meaning = "1: they order the rows alike" if level == "system" else "1: they order the samples of a row alike"
    text = f"Spearman's rank correlation of {len(names)} metrics {over}. {meaning}, 0: they have nothing in common."
    shown = own[["metric_a", "metric_b", "spearman", "kendall", "rows", "n"]]
    yield Plot("agreement", f"agreement_{level}", title, text, shown, figure)


def _heat(table: pd.DataFrame, title: str, colours: str, limits: tuple[float, float]) -> Figure:
    """A heat map with a number in every cell."""
    height, width = table.shape
    figure, axes = blank(max(4.6, 1.9 + 0.62 * width + 0.05 * max(map(len, table.index))), 1.4 + 0.3 * height)
    low, high = limits if limits[0] < limits[1] else (limits[0] - 0.5, limits[0] + 0.5)
    values = table.to_numpy(float)
    mesh = axes.pcolormesh(values, cmap=colours, vmin=low, vmax=high, edgecolors=PAPER, linewidth=0.5)
    for (row, column), value in np.ndenumerate(values):
        if value == value:
            red, green, blue, _ = mesh.to_rgba(value)
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "color": LIGHT if dark else DARK}
            axes.text(column + 0.5, row + 0.5, f"{value:.2f}", **style)
    axes.set_xticks(np.arange(width) + 0.5, list(table.columns), rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(height) + 0.5, list(table.index))
    axes.invert_yaxis()
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    return figure
