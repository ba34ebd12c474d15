"""Variants, the rows of a leaderboard: which runs repeat each other, and what they are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.store.runs import Run
from harness.tables.columns import ROW_COLUMNS

BLANK = "blank"  # the control that is a captioner on pictures without anything on them


@dataclass(frozen=True)
class Variant:
    """A row: its label, the runs that repeat it, and the name of the row that sees where it is a blank run's.

    key: what its runs have in common, a hash.
    """

    key: str
    label: Mapping[str, str]
    runs: tuple[Run, ...]
    seeing: str | None = None

    @property
    def name(self) -> str:
        """In one cell; a blank run has the name of the row that sees."""
        return row_name(self.label[name] for name in ROW_COLUMNS)

    @property
    def control(self) -> str:
        """The control that it is; empty for a captioner."""
        return self.label["control"]

    def complete(self, protocol: str) -> list[Run]:
        """The runs that have all their captions and are scored."""
        return [run for run in self.runs if run.status == "ok" and protocol in run.protocols]


def variants(runs: Iterable[Run]) -> list[Variant]:
    """The rows of some runs, captioners first. A blank run is called as the one that sees."""
    kinds: tuple[dict[str, list[Run]], dict[str, list[Run]]] = ({}, {})
    for run in runs:
        kinds[bool(run.control)].setdefault(str(run.manifest.get("variant")), []).append(run)
    seeing, controls = (labels({key: members[0] for key, members in kind.items()}) for kind in kinds)
    found = [Variant(key, label, tuple(kinds[0][key])) for key, label in seeing.items()]
    for key, label in controls.items():
        twin = seeing.get(str(kinds[1][key][0].manifest.get("seeing")))
        named = label if twin is None else {**label, "strategy": twin["strategy"]}
        own = None if twin is None else row_name(twin[name] for name in ROW_COLUMNS)
        found.append(Variant(key, named, tuple(kinds[1][key]), own))
    return found


def labels(variants: Mapping[str, Run]) -> dict[str, dict[str, str]]:
    """Names of the rows. Rows that would read alike get the options in which they differ: 'targeted[lora.rank=4]'."""
    names = (ROW_COLUMNS[0], "class", *ROW_COLUMNS[1:])
    found = {
        key: {**{name: str(run.row[name]) for name in names}, "control": run.control} for key, run in variants.items()
    }
    for keys in _alike(found):
        options = {key: _options(_used(variants[key])) for key in keys}
        differing = sorted(
            name for name in set().union(*options.values()) if len({options[k].get(name) for k in keys}) > 1
        )
        for key in keys:
            shown = ",".join(f"{name}={options[key].get(name)}" for name in differing)
            found[key]["strategy"] += f"[{shown}]"
    for keys in _alike(found):  # the same options over other bytes: a checkpoint or the training data changed
        for key in keys:
            found[key]["strategy"] = f"{found[key]['strategy'].removesuffix('[]')}[{key[:6]}]"
    return found


def row_name(cells: Iterable[Any]) -> str:
    """A row's name in one cell, from its ROW_COLUMNS: model/strategy/prompt/modality."""
    return "/".join(map(str, cells))


def _alike(found: Mapping[str, Mapping[str, str]]) -> Sequence[list[str]]:
    groups: dict[tuple[str, ...], list[str]] = {}
    for key, label in found.items():
        groups.setdefault(tuple(label.values()), []).append(key)
    return [keys for keys in groups.values() if len(keys) > 1]


def _used(run: Run) -> Any:
    """The configuration that a run depends on: of a control, its own."""
    config = run.manifest["config"]
    return config if run.control in ("", BLANK) else {name: config[name] for name in ("dataset", "control")}


def _options(config: Any, key: str = "") -> dict[str, str]:
    ignored = {"seed", "results", "device", "threads", "features", "features_gb"}
    ignored |= {"labels_in_training"}  # seen in the modality
    if not isinstance(config, Mapping):
        return {key: str(config)}
    found: dict[str, str] = {}
    for name, value in config.items():
        if key or name not in ignored:
            found |= _options(value, f"{key}.{name}" if key else str(name))
    return found
