"""The rows of one split in the forms of ROCOv2 and ImageCLEF, before anything is judged."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.contracts import RequestError
from harness.datasets._csv import read_lines, sniff, wrong_length
from harness.datasets._folder import Folder, Pictures
from harness.imaging.files import StoredImage
from harness.imaging.parquet import ParquetImage, holds_bytes
from harness.store.files_cache import Memo

NO_LINE = 0  # of what has no row
NOTHING: dict[str, str] = {}

LICENCE = re.compile(r"CC[ -](?:BY(?:-(?:NC|SA|ND))*|0)(?: \d\.\d)?", re.IGNORECASE)


@dataclass(slots=True)
class ChallengeRow:
    """One row: where it stands, its cells, its picture. `fault` says why it cannot be used, if that is known already.

    manual, automatic: concept cells, None where there is no such file.
    """

    line: int
    id: str
    caption: Any = None
    manual: Any = None
    automatic: Any = None
    image: StoredImage | None = None
    fault: str = ""
    factors: Mapping[str, str] = field(default_factory=dict)


def rows_of(folder: Folder, split: str, memo: Memo | None) -> Iterator[ChallengeRow]:
    """All rows of a split, then a faulty one for each picture or concept cell that no row claims. RequestError."""
    if ("captions", split) in folder.tables:
        yield from _rows_of_tables(folder, split, memo)
    elif split in folder.parquet:
        yield from _rows_of_parquet(folder.parquet[split], memo)
    else:
        seen = sorted({f"{kind} of {of}" for kind, of in folder.tables} | {f"parquet of {s}" for s in folder.parquet})
        raise RequestError(
            f"dataset.root={folder.root}: expected {split}_captions.csv or data/{split}-*.parquet, "
            f"found {', '.join(seen) or 'no table'}; is it the right folder?"
        )


def ids_of(folder: Folder, splits: Iterable[str]) -> dict[str, str]:
    """The split of every id in the named splits, the first of them that has it."""
    owner: dict[str, str] = {}
    for split in splits:
        if ("captions", split) in folder.tables:
            for _, identity, _, _ in _cells(folder.tables["captions", split], "caption"):
                owner.setdefault(identity, split)
        else:
            for path in folder.parquet.get(split, ()):
                with _opened(path) as file:
                    name = file.schema_arrow.names[sniff(path, file.schema_arrow.names, "caption").id]
                    for identity in file.read(columns=[name], use_threads=False).column(0).to_pylist():
                        owner.setdefault(str(identity).strip(), split)
    return owner


# ---------------------------------------------------------------- tables beside pictures


def _rows_of_tables(folder: Folder, split: str, memo: Memo | None) -> Iterator[ChallengeRow]:
    pictures = folder.pictures(split, memo)
    automatic = _concepts(folder.tables.get(("concepts", split)))
    manual = _concepts(folder.tables.get(("concepts_manual", split)))
    captions = folder.tables["captions", split]
    cells = {line: (identity, text, fault) for line, identity, text, fault in _cells(captions, "caption")}
    claimed = {identity for identity, _, _ in cells.values()}
    licences = _licences(folder.licences, claimed)
    for line, (identity, text, fault) in cells.items():
        yield ChallengeRow(
            line,
            identity,
            text,
            manual.get(identity, "") if manual is not None else None,
            automatic.get(identity, "") if automatic is not None else None,
            pictures.found.get(identity),
            fault or _without_picture(identity, split, pictures),
            licences.get(identity, NOTHING),
        )
    for identity in sorted(pictures.found.keys() - claimed):
        yield ChallengeRow(NO_LINE, identity, fault=f"a picture without a row in {captions.name}")
    for identity in sorted((automatic or {}).keys() - claimed - pictures.found.keys()):
        yield ChallengeRow(NO_LINE, identity, fault=f"concepts without a row in {captions.name}")


def _without_picture(identity: str, split: str, pictures: Pictures) -> str:
    """Why a row has no picture of its own; "" when it has one."""
    if identity in pictures.twice:
        return f"two pictures have this id, the second is {pictures.twice[identity]}; keep one of them"
    if identity not in pictures.found:
        return f"no picture: expected {identity}.jpg in {split}_images/{split}, {split} or {split}_images.zip"
    return ""


def _cells(path: Path, kind: str) -> Iterator[tuple[int, str, str, str]]:
    """Line, id, the cell of one kind, and why the line is none: "" for a good one. Equal ids share their memory."""
    columns, delimiter, lines = read_lines(path)
    header = sniff(path, columns, kind)
    place = header.caption if kind == "caption" else header.concepts
    assert place is not None
    width = len(columns)
    for line, cells in lines:
        fault = wrong_length(columns, cells, delimiter) if len(cells) != width else ""
        identity = cells[header.id].strip() if len(cells) > header.id else ""
        if not identity:
            identity, fault = f"line {line}", fault or "id is empty"
        yield line, sys.intern(identity), "" if fault else cells[place], fault


def _concepts(path: Path | None) -> dict[str, str] | None:
    """Concept cells by id; None without a file. Most cells repeat, so each is kept once."""
    if path is None:
        return None
    return {identity: sys.intern(cell) for _, identity, cell, fault in _cells(path, "concepts") if not fault}


def _licences(path: Path | None, wanted: set[str]) -> dict[str, dict[str, str]]:
    """What license_information.csv says of the pictures that are asked for."""
    if path is None:
        return {}
    columns, _, lines = read_lines(path)
    header = sniff(path, columns)
    names = [name.lower() for name in columns]
    places = [(name, names.index(name)) for name in ("pmcid", "attribution", "link") if name in names]
    found: dict[str, dict[str, str]] = {}
    width = len(columns)
    for _, cells in lines:
        identity = cells[header.id].strip() if len(cells) == width else ""
        if identity in wanted:
            known: dict[str, str] = {name: text for name, place in places if (text := cells[place].strip())}
            if licence := LICENCE.match(known.get("attribution", "")):
                known["licence"] = sys.intern(licence.group().upper())
            found[identity] = known
    return found


# ---------------------------------------------------------------- Parquet, as Hugging Face keeps it


def _rows_of_parquet(paths: Iterable[Path], memo: Memo | None) -> Iterator[ChallengeRow]:
    """Its concepts are the manual ones; the automatic ones are not part of it."""
    line = 0
    for path in paths:
        with _opened(path) as file:
            names = file.schema_arrow.names
            header = sniff(path, names, "caption")
            picture = next((f.name for f in file.schema_arrow if holds_bytes(f.type)), None)
            if picture is None:
                raise RequestError(f"{path}: expected a column of pictures, found {', '.join(names)}")
            wanted = [names[k] for k in (header.id, header.caption, header.concepts) if k is not None]
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=wanted, use_threads=False)
                cells = [table.column(name).to_pylist() for name in wanted]
                concepts = cells[2] if len(cells) > 2 else [None] * table.num_rows
                for offset, (identity, caption, cuis) in enumerate(zip(cells[0], cells[1], concepts, strict=True)):
                    line += 1
                    name = str(identity).strip() if identity is not None else ""
                    image = ParquetImage(path, picture, group, offset, memo=memo)
                    yield ChallengeRow(
                        line, name or f"line {line}", caption, cuis, None, image, "" if name else "id is empty"
                    )


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise RequestError(f"{path}: expected a Parquet file, got {error}") from error
