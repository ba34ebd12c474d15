"""Matplotlib figures as files, and as pictures inside a page that follow its colours."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.store import write_text

# Okabe and Ito's colours, told apart with every common colour blindness; without their yellow, which is too light
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK, PAPER, LINE = "#000000", "#ffffff", "#d0d7de"
DARK, LIGHT = "#111111", "#fefefe"  # on the cells of a heat map, whose colours stay as they are
THEMED = {INK: "currentColor", PAPER: "var(--card)", LINE: "var(--line)"} | {
    colour: f"var(--c{place})" for place, colour in enumerate(PALETTE)
}
STYLE: Any = {  # a name of matplotlib's own for each
    "svg.hashsalt": "capbench",  # names inside the file would be random
    "svg.fonttype": "none",  # text stays text: smaller, and in the colours of the page
    "text.parse_math": False,  # a "$" in a name is a "$"
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that all machines draw the same
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "grid.color": LINE,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.dpi": 72.0,  # a unit of the SVG is a point
}
DPI = 160
PIXELS = 4 / 3  # of a page in a point
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


@dataclass(frozen=True)
class Plot:
    """A figure of a section with what it shows in words and in numbers.

    name: of its files; wide: takes the width of the page.
    """

    section: str
    name: str
    title: str
    text: str
    table: pd.DataFrame
    figure: Figure
    wide: bool = False


@contextmanager
def drawing() -> Iterator[None]:
    """The style of all plots. Letters that the font lacks are boxes in the PNG only, which needs no warning."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure in inches with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def plain(text: object) -> str:
    """A name that XML can hold and a plot has room for."""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in str(text))
    return shown if len(shown) <= 60 else f"{shown[:59]}…"


def save(plot: Plot, folder: Path) -> str:
    """Write NAME.png and NAME.svg; returns the SVG for a page."""
    folder.mkdir(parents=True, exist_ok=True)
    with drawing():
        plot.figure.savefig(folder / f"{plot.name}.png", dpi=DPI, metadata={"Software": None})
        buffer = io.StringIO()
        plot.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    write_text(folder / f"{plot.name}.svg", buffer.getvalue(), durable=False)
    return inline(buffer.getvalue(), plot)


# ---------------------------------------------------------------- inside a page


def inline(svg: str, plot: Plot) -> str:
    """The SVG without styles and scripts, which the page forbids, in the page's colours, with title and description.

    Names inside it get the plot's own in front, so that several plots fit into one page.
    """
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag in (f"{{{SVG}}}style", f"{{{SVG}}}metadata")]:
            parent.remove(child)
    for node in root.iter():
        _presentation(node)
        _renamed(node, plot.name)
        if node.tag == f"{{{SVG}}}text" and "fill" not in node.attrib:
            node.set("fill", "currentColor")
    width, height = (float(root.get(side, "0pt").removesuffix("pt")) for side in ("width", "height"))
    root.attrib = {
        "viewBox": f"0 0 {width:g} {height:g}",
        "width": f"{width * PIXELS:.0f}",
        "height": f"{height * PIXELS:.0f}",
        "class": "plot",
        "role": "img",
        "aria-labelledby": f"{plot.name}-title {plot.name}-text",
        "stroke-linejoin": "round",
        "stroke-linecap": "butt",
    }
    for place, (tag, text) in enumerate((("title", plot.title), ("desc", plot.text))):
        node = ET.Element(f"{{{SVG}}}{tag}", {"id": f"{plot.name}-{'title' if place == 0 else 'text'}"})
        node.text = text
        root.insert(place, node)
    ET.register_namespace("", SVG)
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", ET.tostring(root, encoding="unicode"))


def _presentation(node: ET.Element) -> None:
    """style="fill: #000" becomes fill="currentColor": a strict page takes attributes, not styles."""
    for part in node.attrib.pop("style", "").split(";"):
        name, found, value = part.partition(":")
        if found and name.strip() != "font-family":
            value = value.strip()
            node.set(name.strip(), THEMED.get(value.lower(), value))


def _renamed(node: ET.Element, name: str) -> None:
    if "id" in node.attrib:
        node.set("id", f"{name}-{node.get('id')}")
    target = node.attrib.pop(f"{{{XLINK}}}href", None)
    if target is not None:
        node.set("href", target.replace("#", f"#{name}-", 1) if target.startswith("#") else target)
    if node.get("clip-path", "").startswith("url(#"):
        node.set("clip-path", node.get("clip-path", "").replace("#", f"#{name}-", 1))
