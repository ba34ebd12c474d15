"""What goes to the terminal: lines, tables, and progress bars where somebody looks at them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from harness.machine import ranks

WIDE = 240  # columns for tables that go to a file or a pipe

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)
if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = WIDE

Advance = Callable[[int], None]


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: Collection[str],
    caption: str = "",
    style: Callable[[Sequence[str]], str | None] = lambda row: None,
) -> None:
    """Print rows of text below their columns; those in `left` to the left, numbers to the right.

    A row without cells ends a section. style: of a row, in the words of rich.
    """
    shown = Table(
        title=title or None,
        caption=caption or None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in columns:
        shown.add_column(name.replace("_", " "), justify="left" if name in left else "right", overflow="fold")
    for row in rows:
        if row:
            shown.add_row(*map(escape, row), style=style(row))
        else:
            shown.add_section()
    console.print(shown, soft_wrap=False)


def listed(lines: Sequence[str], most: int, rest: str) -> None:
    """Print the first lines and, in the words of `rest`, how many more there are."""
    for line in lines[:most]:
        console.print(line, markup=False)
    if len(lines) > most:
        console.print(rest.format(len(lines) - most), markup=False)


@contextmanager
def bar(title: str, total: int, done: int = 0) -> Iterator[Advance]:
    """A bar over `total` items of which `done` exist already; call the yielded function with each advance."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    hidden = not errors.is_terminal or not ranks.first()  # the processes of a cell share one terminal
    with Progress(*columns, console=errors, transient=True, disable=hidden) as progress:
        task = progress.add_task(title, total=total, completed=done)
        yield lambda count: progress.advance(task, count)
