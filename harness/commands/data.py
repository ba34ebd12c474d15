"""capbench data: check a dataset row by row, or convert it to shards that are quick to read.

usage: capbench data check DATASET [--config-dir DIR] [dataset.KEY=VALUE ...] [KEY=VALUE ...]
       capbench data prepare DATASET out=FOLDER [--config-dir DIR] [dataset.KEY=VALUE ...] [KEY=VALUE ...]

check: reads every row and decodes every picture; writes problems.csv (split, id, kind, severity, detail). Nothing is
changed. A repeated or interrupted check does not decode again what it knows.
prepare: resized pictures with ids, captions, modalities and concepts in Parquet shards, to be read by
dataset=prepared dataset.root=FOLDER. An interrupted one goes on with the next shard.
Exit codes: 0 done; 1 there are errors, or pictures that were left out; 2 the request was wrong.
"""

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
