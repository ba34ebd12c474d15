"""Tables as the page shows them: text, what a column is sorted by, intervals as bars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.page.study import given

EMPTY = "–"


@dataclass(frozen=True)
class Bar:
    """An interval with its value, in percent of the width of its cell; `zero` where no difference lies."""

    low: float
    at: float
    high: float
    zero: float | None = None


@dataclass(frozen=True)
class Cell:
    """text and, smaller, what belongs to it; sort: what decides the place of its row, None for the end."""

    text: str
    sort: float | str | None = None
    small: str = ""
    bar: Bar | None = None


def text(value: Any) -> Cell:
    """Words."""
    shown = str(value) if given(value) else ""
    return Cell(shown, shown.lower() or None)


def number(value: Any, digits: int = 3, sign: bool = False) -> Cell:
    """A number with fixed decimals."""
    if not given(value):
        return Cell(EMPTY)
    return Cell(f"{value:{'+' if sign else ''},.{digits}f}", float(value))


def short(value: Any) -> Cell:
    """A number over several orders of magnitude, with three digits."""
    if not given(value):
        return Cell(EMPTY)
    return Cell(f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}", float(value))


def p_value(value: Any) -> Cell:
    """A probability, the small ones as a bound."""
    if not given(value):
        return Cell(EMPTY)
    return Cell("< 0.001" if value < 0.001 else f"{value:.3f}", float(value))


def whole(value: Any) -> Cell:
    """A number without decimals."""
    return number(value, 0)


def signed(value: Any) -> Cell:
    """A difference."""
    return number(value, sign=True)


def size(value: Any) -> Cell:
    """Bytes."""
    if not given(value) or not value:
        return Cell(EMPTY)
    scaled, unit = next(
        (value / 1000**k, u) for k, u in ((3, "GB"), (2, "MB"), (1, "kB"), (0, "B")) if value >= 1000**k
    )
    return Cell(f"{scaled:.3g} {unit}" if scaled < 1000 else f"{scaled:,.0f} {unit}", float(value))


def duration(seconds: Any) -> Cell:
    """Seconds in the unit that people would use."""
    if not given(seconds):
        return Cell(EMPTY)
    shown = next((f"{seconds / s:.1f} {u}" for s, u in ((3600, "h"), (60, "min")) if seconds >= s), f"{seconds:.1f} s")
    return Cell(shown, float(seconds))


def spread(low: Any, high: Any, sign: bool = False) -> str:
    """An interval in words; empty where there is none."""
    form = "+.3f" if sign else ".3f"
    return f"[{low:{form}}, {high:{form}}]" if given(low) and given(high) else ""


def with_interval(value: Any, low: Any, high: Any, scale: tuple[float, float] | None, sign: bool = False) -> Cell:
    """A value with its interval and, where a scale is given, both as a bar."""
    if not given(value):
        return Cell(EMPTY)
    bar = None
    if scale and given(low) and given(high):
        zero = _place(0, scale) if sign else None
        bar = Bar(_place(low, scale), _place(value, scale), _place(high, scale), zero)
    return Cell(f"{value:{'+' if sign else ''}.3f}", float(value), spread(low, high, sign), bar)


def scale_of(lows: Iterable[Any], highs: Iterable[Any], zero: bool = False) -> tuple[float, float] | None:
    """What the bars of a column span, with zero where differences are drawn; None where nothing has an interval."""
    found = [float(value) for value in (*lows, *highs) if given(value)] + ([0.0] if zero else [])
    if len(found) < 2 or min(found) == max(found):
        return None
    return min(found), max(found)


def _place(value: float, scale: tuple[float, float]) -> float:
    """Percent of the width, 2 % free on both sides."""
    return round(2 + 96 * (value - scale[0]) / (scale[1] - scale[0]), 2)


# ---------------------------------------------------------------- tables


@dataclass(frozen=True)
class Column:
    """A heading, and the form of what stands below it: of the value under `key` of a record, of the record without one.

    Words are left-aligned; of numbers the first click sorts by the largest unless less is better.
    """

    title: str
    key: str = ""
    form: Callable[[Any], Cell] = text
    hint: str = ""
    ascending: bool = False

    @property
    def number(self) -> bool:
        """Whether numbers stand below it."""
        return self.form is not text

    def cell(self, record: Mapping[Any, Any]) -> Cell:
        """What stands in the row of a record."""
        return self.form(record.get(self.key) if self.key else record)


@dataclass(frozen=True)
class Row:
    """Cells, the first of which is the row's heading where the grid says so; facts are what filters look at."""

    cells: Sequence[Cell]
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Body:
    """Rows that are sorted among themselves, with a heading of their own or none."""

    rows: Sequence[Row]
    title: str = ""


@dataclass(frozen=True)
class Grid:
    """A table. heading: the place of the cell that names a row."""

    name: str
    caption: str
    columns: Sequence[Column]
    bodies: Sequence[Body]
    heading: int = 0


def grid(name: str, caption: str, columns: Sequence[Column], records: Iterable[Mapping[Any, Any]]) -> Grid:
    """A table of one body, a row for each record, without its empty columns."""
    body = Body([Row([column.cell(record) for column in columns]) for record in records])
    return trimmed(Grid(name, caption, columns, [body]))


def trimmed(whole: Grid) -> Grid:
    """The table without columns in which nothing stands."""
    rows = [row for body in whole.bodies for row in body.rows]
    kept = [
        place
        for place in range(len(whole.columns))
        if place == whole.heading or any(row.cells[place].text not in ("", EMPTY) for row in rows)
    ]
    bodies = [
        Body([Row([row.cells[place] for place in kept], row.facts) for row in body.rows], body.title)
        for body in whole.bodies
        if body.rows
    ]
    columns = [whole.columns[place] for place in kept]
    return Grid(whole.name, whole.caption, columns, bodies, kept.index(whole.heading))
