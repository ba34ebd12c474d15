"""The check of a dataset: loads every split, looks at every picture and caption, writes problems.csv."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from harness import config
from harness.contracts import SPLITS, UNKNOWN, Dataset, ImageError, ImageSource, NonNegative, RequestError, Split
from harness.curation.captions import caption_damage, duplicate_captions
from harness.curation.duplicates import Picture, duplicate_pictures
from harness.curation.pictures import Facts, examine
from harness.curation.problems import Problem, kind_of, kind_of_image, sort_problems, unusable
from harness.curation.summary import show
from harness.machine import pool
from harness.machine.terminal import bar, console
from harness.store import csv_text, make_folder, write_text
from harness.tables.csv_files import write_csv

CHUNK = 64  # pictures that a worker takes, and writes down, at a time
USUAL_MODES = ("RGB", "L")


@dataclass(frozen=True)
class Settings:
    """The root-level values of conf/data_check.yaml."""

    splits: list[str] | None
    out: str
    write_clean_list: str | None
    workers: NonNegative | None
    smallest: NonNegative


def check(cell: config.Cell) -> int:
    """Check one dataset; 1 when a row has an error."""
    settings: Settings = config.settings(cell, Settings)
    workers = pool.count(settings.workers)
    dataset: Dataset = config.build_node(_unproved(cell.config["dataset"]), "dataset")
    out = make_folder(Path(settings.out), "out")
    splits, problems = load(dataset, settings.splits)
    pictures = list(_pictures(splits, problems, out, workers))
    problems += _of_rows(splits)
    problems += _of_pictures(pictures, settings.smallest)
    problems += duplicate_pictures(pictures)
    found = sort_problems(problems)
    table = [(p.split, p.id, p.kind, p.severity, p.detail) for p in found]
    write_csv(pd.DataFrame(table, columns=["split", "id", "kind", "severity", "detail"]), out / "problems.csv")
    if settings.write_clean_list:
        write_clean_list(Path(settings.write_clean_list), splits, found)
    show(cell.choices["dataset"], splits, found)
    console.print(f"problems: {out / 'problems.csv'}", markup=False)
    return int(any(problem.severity == "error" for problem in found))


def _unproved(node: Mapping[str, Any]) -> dict[str, Any]:
    """A dataset's values without its own proof of every picture, where it has one: the check decodes them anyway."""
    return {**node, **({"check": "listed"} if "check" in node else {})}


def asked_splits(asked: Sequence[str] | None) -> tuple[str, ...]:
    """The splits of a request in their usual order, all without one. Raises RequestError on other names."""
    wrong = [name for name in asked or () if name not in SPLITS]
    if wrong:
        raise RequestError(f"splits={','.join(asked or ())}: expected names of {', '.join(SPLITS)}, got {wrong[0]!r}")
    return tuple(name for name in SPLITS if asked is None or name in asked)


def load(dataset: Dataset, asked: Sequence[str] | None) -> tuple[list[Split], list[Problem]]:
    """The splits that can be read, and why others cannot; raises RequestError when none can."""
    splits, problems, refusals = [], [], []
    for name in asked_splits(asked):
        try:
            splits.append(dataset.load(name))
        except RequestError as error:
            refusals.append(error)
            kind = "unread_split" if asked is None else "unusable_split"
            problems.append(Problem(name, "", kind, str(error)))
    if not splits:
        raise refusals[0]
    return splits, problems


def write_clean_list(path: Path, splits: Sequence[Split], problems: Sequence[Problem]) -> None:
    """split,id of every sample without an error, in the dataset's order."""
    bad = unusable(problems)
    rows = ((s.split, s.id) for split in splits for s in split.samples if (s.split, s.id) not in bad)
    make_folder(path.parent, "write_clean_list")
    write_text(path, csv_text(("split", "id"), rows))


# ---------------------------------------------------------------- rows


def _of_rows(splits: Sequence[Split]) -> list[Problem]:
    problems = list(_rejected(splits))
    samples = [(split.name, sample) for split in splits for sample in split.samples]
    for name, sample in samples:
        problems += [Problem(name, sample.id, kind, detail) for kind, detail in caption_damage(sample.caption)]
    problems += duplicate_captions(samples)
    for split in splits:
        unknown = sum(sample.modality == UNKNOWN for sample in split.samples)
        if unknown:
            detail = f"{unknown} of {len(split.samples)} samples have no modality"
            problems.append(Problem(split.name, "", "unknown_modality", detail))
    return problems


def _rejected(splits: Sequence[Split]) -> Iterator[Problem]:
    """The ledgers. A row whose split cannot be told stands in each of them, and is named once."""
    seen = Counter((entry.id, entry.reason) for split in splits for entry in split.rejected)
    for split in splits:
        for entry in split.rejected:
            everywhere = len(splits) > 1 and seen[entry.id, entry.reason] == len(splits)
            name = "" if everywhere else split.name
            yield Problem(name, entry.id, kind_of(entry.reason), entry.reason)


# ---------------------------------------------------------------- pictures


def _pictures(splits: Sequence[Split], problems: list[Problem], out: Path, workers: int) -> Iterator[Picture]:
    """Every picture with its facts; one that cannot be decoded becomes a problem."""
    rows = [(split.name, sample.id, image) for split in splits for sample in split.samples for image in sample.images]
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    tasks: Iterator[list[ImageSource]] = ([image for _, _, image in chunk] for chunk in chunks)
    with bar("pictures", len(rows)) as advance:
        results: Iterator[list[Facts | ImageError]] = pool.in_order(partial(examine, folder=out), tasks, workers)
        for chunk, found in zip(chunks, results, strict=True):
            for (split, name, _), facts in zip(chunk, found, strict=True):
                if isinstance(facts, ImageError):
                    problems.append(Problem(split, name, kind_of_image(str(facts)), str(facts)))
                else:
                    yield Picture(split, name, facts)
            advance(len(chunk))


def _of_pictures(pictures: Sequence[Picture], smallest: int) -> Iterator[Problem]:
    for picture in pictures:
        facts, found = picture.facts, dict[str, str]()
        if min(facts.width, facts.height) < smallest:
            found["tiny_image"] = f"{facts.width} x {facts.height} pixels, expected {smallest} or more"
        if facts.blank:
            found["blank_image"] = "all pixels are alike"
        if facts.mode and facts.mode not in USUAL_MODES:
            found["unusual_mode"] = f"{facts.format} of mode {facts.mode}"
        for kind, detail in found.items():
            yield Problem(picture.split, picture.id, kind, detail)
