"""Metrics, what they compare, and the protocols that name them."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol, runtime_checkable

from harness.contracts.common import RequestError
from harness.contracts.data import ImageSource


@dataclass(frozen=True)
class Pair:
    """What a metric compares."""

    reference: str
    candidate: str
    image: ImageSource | None = None


@dataclass(frozen=True)
class Score:
    """The values of one pair by name ("f1", ...); a failed one has no values and a reason."""

    values: Mapping[str, float]
    reason: str = ""


class Metric(Protocol):
    """A per-sample metric. `values` names what `score` returns, the headline last; a protocol picks one of them.

    `needs` says what of a pair it looks at beside the candidate: "reference", "image", and "corpus" where a value
    depends on the references of the whole split.
    """

    name: str
    values: tuple[str, ...]
    needs: frozenset[str]
    higher_is_better: bool

    def missing(self) -> str | None:
        """Why the metric cannot run here and the command that helps; None when all is there. Cheap."""

    def signature(self) -> str:
        """Name, version, options and checkpoint digest in one line: what a value depends on besides its texts."""

    def load(self, device: str, features: MutableMapping[str, bytes]) -> None:
        """Read checkpoints, into a shallow copy that ends with the scoring. `features` outlives the command: what was
        computed from one text or picture, by the hex digest of that content and of all that it depends on."""

    def score(self, pairs: Sequence[Pair], references: Sequence[str]) -> list[Score]:
        """One score per pair. `references`: those of the whole split, one per sample, for corpus statistics."""


@dataclass(frozen=True)
class Ratio:
    """A quotient of weighted sums over samples. over, under: value of the metric -> its weight."""

    over: Mapping[str, float]
    under: Mapping[str, float]


@runtime_checkable
class Combined(Protocol):
    """A metric some of whose values are no means over samples: F1 over sums, balanced accuracy, macro F1.

    combine: value -> the ratios whose mean it is over a set of samples. What they sum up are values of the metric too:
    `{"f1": [Ratio(over={"tp": 2}, under={"tp": 2, "fp": 1, "fn": 1})]}`. A ratio of 0/0 is left out of the mean; where
    no ratio is left there is no value. What `score` returns for the value itself is shown with the sample, no more.
    """

    combine: Mapping[str, Sequence[Ratio]]


FACTS = {
    *("rank", "rank_low", "rank_high", "model", "class", "strategy", "prompt", "modality", "seeds", "control", "n"),
    *("params_trained_pct", "captions_per_s", "peak_memory_bytes", "id", "reference", "caption", "status"),
}
"""Columns of leaderboard.csv and samples.csv beside the scores."""


def is_fact(name: str) -> bool:
    """Whether a column of a table has this name, whatever the protocol."""
    return name in FACTS or name.endswith(("_ci_low", "_ci_high")) or name.startswith("gain_")


@dataclass(frozen=True)
class ScoreProtocol:
    """A named, versioned set of metrics, options and averages: all that a leaderboard shows of scores, and its order.

    columns: leaderboard column -> {metric, value, options}; averages: column -> the columns it is the mean of,
    in the order they are computed; primary: the column that ranks; official: the names of an organiser's scores.json.
    `note` is printed with every table.
    """

    name: str
    version: int
    columns: Mapping[str, Mapping[str, Any]]
    averages: Mapping[str, Sequence[str]]
    primary: str
    note: str = ""
    official: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that every name stands for a column or an average, and for nothing else in a table."""
        known = {*self.columns, *self.averages}
        twice = sorted({*self.columns} & {*self.averages}) or sorted(name for name in known if is_fact(name))
        if twice:
            what = "another column" if twice[0] in self.columns and twice[0] in self.averages else "a fact of each row"
            raise RequestError(f"protocol {self.name}: {twice[0]!r} names {what}; expected another name")
        for name in [self.primary, *self.official.values(), *chain.from_iterable(self.averages.values())]:
            if name not in known:
                raise RequestError(f"protocol {self.name}: expected one of {', '.join(sorted(known))}, got {name!r}")
