"""The sections of the page, in their order, each left out where there is nothing to say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from harness.page import details
from harness.page.figures import Plot, drawing, save
from harness.page.plots import plots
from harness.page.standing import LEVEL, filters, leaderboard, summary
from harness.page.study import Study

ROWS = 40  # of the matrix of pairs


def parts(study: Study, folder: Path, gallery: Mapping[str, Any] | None, why: str) -> dict[str, Any]:
    """What the template needs; draws the plots into a folder. why: reason of missing pictures."""
    drawn: dict[str, list[tuple[Plot, Markup]]] = {}
    with drawing():
        for plot in plots(study):
            drawn.setdefault(plot.section, []).append((plot, Markup(save(plot, folder))))
    return {
        "study": study,
        "board": study.board,
        "summary": summary(study),
        "leaderboard": leaderboard(study),
        "filters": filters(study),
        "several": len({row["model"] for row in study.rows}) < len(study.rows),
        "level": LEVEL,
        "drawn": drawn,
        "controls": details.controls(study),
        "ablation": details.ablation(study),
        "costs": details.costs(study),
        "failures": details.failures(study),
        "runs": details.runs(study),
        "origin": details.origin(study),
        "gallery": gallery,
        "why": why,
    }


def significance(study: Study) -> dict[str, Any] | None:
    """Pairs of rows by metric: [row, row, difference, low, high, p] with rows by their places; None without any."""
    table = study.tables.get("significance")
    if table is None:
        return None
    names = [row["name"] for row in study.ranked if row["name"] in {*table["row_a"], *table["row_b"]}][:ROWS]
    places = {name: place for place, name in enumerate(names)}
    table = table[table["row_a"].isin(places) & table["row_b"].isin(places)]
    columns = ["difference", "ci_low", "ci_high", "p_holm"]
    pairs: dict[str, list[list[float]]] = {}
    for metric in (name for name in study.measures if name in set(table["metric"])):
        own = table[table["metric"] == metric]
        cells = own[columns].round(4).to_numpy(float).tolist()
        ends = zip(own["row_a"].map(places).tolist(), own["row_b"].map(places).tolist(), cells, strict=True)
        pairs[metric] = [[a, b, *values] for a, b, values in ends]
    ranks = {row["name"]: row["rank"] for row in study.ranked}
    return {
        "rows": [{"label": study.label(name), "rank": int(ranks[name])} for name in names],
        "pairs": pairs,
        "lower": sorted(study.board.lower),
        "level": LEVEL,
    }
