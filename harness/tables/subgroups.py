"""How the rows of a leaderboard do on parts of the samples: subgroups.csv."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.store import JournalRow
from harness.tables import stats
from harness.tables.boards import Ranked
from harness.tables.columns import SEED
from harness.tables.values import tidy

MANY = 5  # concepts: this many and more are one subgroup

Mask = NDArray[np.bool_]


def subgroups_table(ranked: Ranked, trials: int) -> pd.DataFrame:
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
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _part(ranked: Ranked, trials: int, mask: Mask) -> pd.DataFrame:
    statistics = ranked.statistics[:, mask]
    values = ranked.formula(statistics.mean(axis=1))
    low = high = np.full_like(values, np.nan)
    n = statistics.shape[1]
    if n > 1:
        low, high = stats.interval(stats.resampled(statistics, trials, SEED, ranked.formula))
    cells = {"value": values, "ci_low": low, "ci_high": high}
    return tidy({"row": ranked.rows}, ranked.columns, cells).assign(n=n)


def divisions(facts: Sequence[JournalRow]) -> dict[str, dict[str, Mask]]:
    """Ways to divide the samples -> subgroup -> which samples [n].

    Short, middling and long references: equal lengths stay together, so that the thirds may not be even.
    """
    kinds = np.array([str(row.modality) for row in facts])
    words = np.array([len(str(row.reference).split()) for row in facts])
    thirds = np.searchsorted(np.quantile(words, [1 / 3, 2 / 3], method="lower"), words)
    found = {
        "modality": {str(kind): kinds == kind for kind in np.unique(kinds)},
        "caption_length": {_range(words[thirds == third]): thirds == third for third in np.unique(thirds)},
    }
    concepts = [row.concepts for row in facts if row.concepts is not None]
    if len(concepts) == len(facts):  # journals of earlier versions do not have them
        counts = np.minimum([len(names) for names in concepts], MANY)
        found["concepts"] = {_count(number): counts == number for number in np.unique(counts)}
    return {by: members for by, members in found.items() if len(members) > 1}


def _range(words: NDArray[np.int64]) -> str:
    return f"{words.min()}-{words.max()} words"


def _count(concepts: int) -> str:
    return f"{concepts} or more" if concepts == MANY else str(concepts)
