"""From a study to one HTML file that asks nothing of a network and runs nothing but its own script."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.page import details, standing
from harness.page.figures import Plot, drawing, save
from harness.page.grid import Cell, Column, Grid, grid, text
from harness.page.plots import plots
from harness.page.standing import LEVEL
from harness.page.study import Study

ROWS = 40  # of the matrix of pairs
FOLDER = Path(__file__).parent
ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}  # what could end a script element


def page(study: Study, plots_folder: Path, shown: Mapping[str, Any] | None, why: str) -> str:
    """The page of a study; draws its plots into a folder. shown: the gallery; why: reason of missing pictures.

    Every text is escaped: in HTML by the template, in the data by `embedded`. Only our own style, script and plots go
    in as they are, and the policy on top of the page lets nothing else run or load.
    """
    css, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    own = FileSystemLoader(FOLDER)
    environment = Environment(loader=own, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.lstrip_blocks = True
    html = environment.get_template("report.html.j2").render(
        css=Markup(css),
        script=Markup(script),
        policy=policy(css, script),
        data=embedded({"significance": significance(study), "gallery": shown}),
        numbers=numbers,
        study=study,
        board=study.board,
        level=LEVEL,
        summary=standing.summary(study),
        leaderboard=standing.leaderboard(study),
        filters=standing.filters(study),
        drawn=drawn(study, plots_folder),
        controls=details.controls(study),
        ablation=details.ablation(study),
        costs=details.costs(study),
        failures=details.failures(study),
        runs=details.runs(study),
        origin=details.origin(study),
        gallery=shown,
        why=why,
    )
    return html.lstrip() + "\n"


def drawn(study: Study, folder: Path) -> dict[str, list[tuple[Plot, Markup]]]:
    """Section -> its plots as they stand in the page; their files go into a folder."""
    found: dict[str, list[tuple[Plot, Markup]]] = {}
    with drawing():
        for plot in plots(study):
            found.setdefault(plot.section, []).append((plot, Markup(save(plot, folder))))
    return found


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


def policy(css: str, script: str) -> str:
    """What the page may do: its own style and script, by hash, and pictures that are in it."""
    rules = ("default-src 'none'", "img-src data:", f"style-src '{_hash(css)}'", f"script-src '{_hash(script)}'")
    return "; ".join((*rules, "base-uri 'none'", "form-action 'none'"))


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def embedded(data: Mapping[str, Any]) -> Markup:
    """JSON that can stand in a script element whatever is in it."""
    whole = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return Markup(whole.translate(ESCAPES))


def numbers(name: str, caption: str, table: pd.DataFrame) -> Grid:
    """The data of a plot as a table."""
    forms = {column: _number if pd.api.types.is_numeric_dtype(table[column]) else text for column in table}
    columns = [Column(str(column), str(column), form) for column, form in forms.items()]
    return grid(name, caption, columns, table.to_dict("records"))


def _number(value: float) -> Cell:
    if value != value:
        return Cell("")
    return Cell(f"{value:.4g}" if isinstance(value, float) else str(value), float(value))
