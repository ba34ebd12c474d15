"""Score files: per-sample values of a metric, as `scores/<metric>-<hash>.csv` of a run holds them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.store import Damaged

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ScoreFile:
    """Value name -> values [samples], NaN where a sample has none; and the sha256 of the bytes they were read from."""

    values: Mapping[str, Array]
    digest: str


def read_scores(path: Path, kept: MutableMapping[str, bytes] | None = None) -> ScoreFile:
    """Raises Damaged when the file is not there or is no table of numbers.

    kept: the numbers of files read before, by the sha256 of their bytes; what is not in it is added.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise Damaged(f"{path}: the scores are gone; run `capbench score` to make them again") from None
    key = hashlib.sha256(raw).hexdigest()
    packed = None if kept is None else kept.get(key)
    if packed is not None:
        return ScoreFile(_unpacked(packed), key)
    try:
        values = _columns(raw.decode())
    except (ValueError, csv.Error) as error:
        raise Damaged(
            f"{path}: expected a table of scores, got damage ({error}); delete it and run `capbench score`"
        ) from None
    if kept is not None:
        kept[key] = _packed(values)
    return ScoreFile(values, key)


def _packed(values: Mapping[str, Array]) -> bytes:
    """A line with the names, then the numbers."""
    names = json.dumps(list(values)).encode()
    return names + b"\n" + np.array(list(values.values()), dtype="<f8").tobytes()


def _unpacked(packed: bytes) -> dict[str, Array]:
    head, _, numbers = packed.partition(b"\n")
    names = json.loads(head)
    return dict(zip(names, np.frombuffer(numbers, dtype="<f8").reshape(len(names), -1), strict=True))


def _columns(text: str) -> dict[str, Array]:
    width = text.partition("\n")[0].count(",") + 1
    cells = _cells(text)
    if len(cells) % width:
        raise ValueError(f"not {width} cells in every row")
    names = cells[:width]
    return {name: _numbers(cells[width + n :: width]) for n, name in enumerate(names) if name not in ("id", "reason")}


def _cells(text: str) -> list[str]:
    """All cells, row after row. Without a quote in the file splitting does, which is several times faster."""
    if '"' in text:
        return [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    return text.removesuffix("\n").replace("\n", ",").split(",")


def _numbers(cells: Sequence[str]) -> Array:
    return np.array([float(cell) if cell else np.nan for cell in cells])
