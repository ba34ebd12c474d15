"""The `data` command: what is wrong with a dataset, and its conversion to shards that are quick to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness import config
from harness.commands._options import parse
from harness.contracts import RequestError
from harness.curation.check import check
from harness.curation.prepare import prepare

ACTIONS: dict[str, Callable[[config.Cell], int]] = {"check": check, "prepare": prepare}


def main(argv: Sequence[str]) -> int:
    """`check DATASET KEY=VALUE ...` or `prepare DATASET KEY=VALUE ...`."""
    arguments = parse("data", argv)
    words = arguments.overrides
    if not words or words[0] not in ACTIONS:
        raise RequestError(f"data {words[0] if words else ''}: expected check or prepare; see `capbench data --help`")
    if len(words) < 2 or "=" in words[1]:
        raise RequestError(
            f"data {words[0]}: expected the name of a dataset, as in `capbench data {words[0]} table "
            "dataset.path=FILE.csv`; `capbench list datasets` names them"
        )
    overrides = [f"dataset={words[1]}", *map(_as_list, words[2:])]
    cell = config.cells(f"data_{words[0]}", overrides, config_dir=arguments.config_dir)[0]
    return ACTIONS[words[0]](cell)


def _as_list(word: str) -> str:
    """splits=train,test would be a sweep to hydra."""
    key, _, value = word.partition("=")
    return f"splits=[{value}]" if key == "splits" and not value.startswith("[") else word
