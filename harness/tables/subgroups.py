"""How the rows of a leaderboard do on parts of the samples: subgroups.csv."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.store import JournalRow
from harness.tables import stats
from harness.tables.boards import BoardKey, Ranked
from harness.tables.columns import SEED, SUBGROUP_COLUMNS

MANY = 5  # concepts: this many and more are one subgroup

Mask = NDArray[np.bool_]


def subgroups_table(key: BoardKey, ranked: Ranked, trials: int) -> pd.DataFrame:
    """Means with intervals by modality, by length of the reference and by number of concepts.

    A way of dividing that leaves one subgroup is left out, as is what the runs do not know of their samples. One
    sample has no interval.
    """
    facts = [row for row, used in zip(ranked.newest.read(), ranked.used, strict=True) if used]
    parts = [
        _part(ranked, trials, mask).assign(by=by, group=label)
        for by, members in divisions(facts).items()
        for label, mask in members.items()
    ]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return table.assign(**key.cells).reindex(columns=list(SUBGROUP_COLUMNS))


def _part(ranked: Ranked, trials: int, mask: Mask) -> pd.DataFrame:
    statistics = ranked.statistics[:, mask]
    values = ranked.formula(statistics.mean(axis=1))
    (rows, columns), n = values.shape, statistics.shape[1]
    bounds = [np.full((rows, columns), np.nan)] * 2
    if n > 1:
        bounds[:] = stats.interval(stats.resampled(statistics, trials, SEED, ranked.formula))
    return pd.DataFrame(
        {
            "row": np.repeat(ranked.rows, columns),
            "metric": np.tile(ranked.columns, rows),
            "n": n,
            "value": values.ravel(),
            "ci_low": bounds[0].ravel(),
            "ci_high": bounds[1].ravel(),
        }
    )


def divisions(facts: Sequence[JournalRow]) -> dict[str, dict[str, Mask]]:
    """Ways to divide the samples -> subgroup -> which samples [n]."""
    words = np.array([len(str(row.reference).split()) for row in facts])
    found = {"modality": dict(_same([row.modality for row in facts])), "caption_length": dict(_thirds(words))}
    concepts = [row.concepts for row in facts if row.concepts is not None]
    if len(concepts) == len(facts):  # journals of earlier versions do not have them
        found["concepts"] = dict(_counted(np.array([len(names) for names in concepts])))
    return {by: members for by, members in found.items() if len(members) > 1}


def _same(names: Sequence[Any]) -> Iterator[tuple[str, Mask]]:
    cells = np.array([str(name) for name in names])
    for name in sorted(set(cells)):
        yield str(name), cells == name


def _thirds(words: NDArray[np.int64]) -> Iterator[tuple[str, Mask]]:
    """Short, middling and long references; equal lengths stay together, so that the thirds may not be even."""
    bounds = np.quantile(words, [1 / 3, 2 / 3], method="lower")
    place = np.searchsorted(bounds, words, side="left")
    for third in range(3):
        mask = place == third
        if mask.any():
            yield f"{words[mask].min()}-{words[mask].max()} words", mask


def _counted(counts: NDArray[np.int64]) -> Iterator[tuple[str, Mask]]:
    for number in range(MANY + 1):
        mask = counts >= MANY if number == MANY else counts == number
        if mask.any():
            yield f"{number} or more" if number == MANY else str(number), mask
