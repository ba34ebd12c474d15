"""What the rows of a leaderboard are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.store.runs import Run
from harness.tables.columns import ROW_COLUMNS


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
    return config if run.control in ("", "blank") else {name: config[name] for name in ("dataset", "control")}


def _options(config: Any, key: str = "") -> dict[str, str]:
    ignored = {"seed", "results", "device", "threads", "labels_in_training"}  # the last is seen in the modality
    if not isinstance(config, Mapping):
        return {key: str(config)}
    found: dict[str, str] = {}
    for name, value in config.items():
        if key or name not in ignored:
            found |= _options(value, f"{key}.{name}" if key else str(name))
    return found
