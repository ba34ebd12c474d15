"""From plain data to one HTML file that asks nothing of a network and runs nothing but its own script."""

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

from harness.page.grid import Cell, Column, Grid, grid, text

FOLDER = Path(__file__).parent
ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}  # what could end a script element


def page(data: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    """The page. data: what its script reads; parts: what the template writes.

    Every text is escaped: in HTML by the template, in the data by `embedded`. Only our own style, script and plots go
    in as they are, and the policy on top of the page lets nothing else run or load.
    """
    css, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    own = FileSystemLoader(FOLDER)
    environment = Environment(loader=own, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.lstrip_blocks = True
    template = environment.get_template("report.html.j2")
    ours = {"css": Markup(css), "script": Markup(script), "policy": policy(css, script)}
    return template.render(**parts, **ours, data=embedded(data), numbers=numbers).lstrip() + "\n"


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
