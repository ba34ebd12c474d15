"""`capbench data check` on a planted dataset, and what it found."""

import csv

from harness import cli
from tests.support.dirty import source


def check(planted, out, *more, target="tests.support.dirty.Listed", workers=0) -> int:
    return cli.main(["data", "check", *source(planted, out, target), f"out={out}", f"workers={workers}", *more])


def problems(out) -> list[dict[str, str]]:
    with (out / "problems.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def found(out) -> set[tuple[str, str, str]]:
    return {(row["split"], row["id"], row["kind"]) for row in problems(out)}
