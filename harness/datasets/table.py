"""A table of pictures and captions: CSV, TSV, JSON Lines or Parquet, pictures in files or inside the Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from harness.contracts import RUNTIME, SPLITS, UNKNOWN, ImageError, Rejected, RequestError, Sample, Split
from harness.datasets._images import FileImage
from harness.datasets._table_cells import (
    CellError,
    caption_text,
    concept_ids,
    find_column,
    picture_path,
    plain_text,
    shared_split,
    split_name,
)
from harness.datasets._table_rows import SUFFIXES, ParquetImage, Row, Rows, read_rows

READERS = 2  # threads that decode pictures for the check; decoders leave the interpreter lock


@dataclass(frozen=True)
class Columns:
    """The table's names of the columns; None for an optional one that it lacks."""

    image: str
    caption: str
    id: str | None
    split: str | None
    modality: str | None
    concepts: str | None


@dataclass(frozen=True)
class Entry:
    """A row under judgement: its sample, or the reason against it. A split of None: it could not be told."""

    line: int
    id: str
    split: str | None = None
    sample: Sample | None = None
    reason: str = ""


class Table:
    """Your own data. Every row becomes a sample or a line in the ledger of rejected rows.

    Optional columns (None): `id`, `split`, `modality`, `concepts` are used where the table has them. Without ids the
    image path is the id; without splits each row is dealt to one by its id; without modality DICOM files tell theirs.
    """

    def __init__(
        self,
        name: str,
        path: Annotated[str | None, RUNTIME],
        root: Annotated[str | None, RUNTIME],
        image_column: str,
        caption_column: str,
        id_column: str | None,
        split_column: str | None,
        modality_column: str | None,
        concepts_column: str | None,
        shares: dict[str, float],
        limit: int | None,
    ) -> None:
        self.name, self.path, self.root, self.shares, self.limit = name, path, root, shares, limit
        self.image_column, self.caption_column = image_column, caption_column
        self.id_column, self.split_column = id_column, split_column
        self.modality_column, self.concepts_column = modality_column, concepts_column
        if limit is not None and limit < 1:
            raise RequestError(f"dataset.limit: expected 1 or more, got {limit}")
        if set(shares) != set(SPLITS) or min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
            raise RequestError(f"dataset.shares: expected shares of {', '.join(SPLITS)} that sum up to 1, got {shares}")

    def load(self, split: str) -> Split:
        """The usable rows of one split in the table's order; every picture is decoded once to prove it."""
        if split not in SPLITS:
            raise RequestError(f"dataset {self.name}: expected a split of {', '.join(SPLITS)}, got {split!r}")
        path = self._path()
        rows = read_rows(path)
        if not rows.rows:
            raise RequestError(f"dataset.path={path}: expected rows, got none; is it the right file?")
        entries = self._judge(rows, self._columns(rows.columns), self._root(path))
        mine = [entry for entry in entries if entry.split == split][: self.limit]
        with ThreadPoolExecutor(READERS) as pool:
            checked = list(pool.map(check_picture, mine))
        checked = sorted(checked + [entry for entry in entries if entry.split is None], key=lambda entry: entry.line)
        samples = tuple(entry.sample for entry in checked if entry.sample)
        rejected = tuple(Rejected(e.id, f"line {e.line}: {e.reason}") for e in checked if not e.sample)
        if not samples:
            raise RequestError(nothing_usable(path, split, entries, rejected))
        return Split(split, samples, rejected)

    def _path(self) -> Path:
        if self.path is None or self.path in ("", "???"):
            kinds = ", ".join(SUFFIXES)
            raise RequestError(f"dataset.path: expected a table ({kinds}), got none; add dataset.path=FILE")
        return as_path(self.path)

    def _root(self, path: Path) -> Path:
        root = as_path(self.root) if self.root else path.parent
        if not root.is_dir():
            raise RequestError(f"dataset.root={root}: no such folder; give the one that the image paths start from")
        return root.resolve()

    def _columns(self, found: Sequence[str]) -> Columns:
        def column(option: str, usual: str) -> str | None:
            return find_column(getattr(self, option), usual, found, option)

        return Columns(
            image=column("image_column", "image") or "",
            caption=column("caption_column", "caption") or "",
            id=column("id_column", "id"),
            split=column("split_column", "split"),
            modality=column("modality_column", "modality"),
            concepts=column("concepts_column", "concepts"),
        )

    def _judge(self, rows: Rows, columns: Columns, root: Path) -> list[Entry]:
        """Everything that can be told without opening a picture."""
        first: dict[str, int] = {}
        entries = []
        for row in rows.rows:
            entry = self._entry(row, columns, root)
            if entry.split is not None and first.setdefault(entry.id, row.line) != row.line:
                reason = f"id {entry.id!r} is already used in line {first[entry.id]}"
                entry = replace(entry, sample=None, reason=reason)
            entries.append(entry)
        return entries

    def _entry(self, row: Row, columns: Columns, root: Path) -> Entry:
        identity, split = f"line {row.line}", None
        if row.fault:
            return Entry(row.line, identity, reason=row.fault)
        try:
            identity = row_id(row, columns)
            split = self._split(row, columns, identity)
            return Entry(row.line, identity, split, sample_of(row, columns, root, identity, split))
        except CellError as fault:
            return Entry(row.line, identity, split, reason=str(fault))

    def _split(self, row: Row, columns: Columns, identity: str) -> str:
        return split_name(row.cells.get(columns.split)) if columns.split else shared_split(identity, self.shares)


def as_path(text: str) -> Path:
    """A path with the home folder filled in, which a shell leaves alone in dataset.path=~/FILE."""
    return Path(text).expanduser() if text.startswith("~/") else Path(text)


def row_id(row: Row, columns: Columns) -> str:
    """The id column, else the image path as given, else the row's number for pictures inside a Parquet file."""
    if columns.id:
        identity = plain_text(row.cells.get(columns.id), "id")
        if not identity:
            raise CellError("id is empty")
        return identity
    picture = row.cells.get(columns.image)
    identity = str(row.line) if isinstance(picture, ParquetImage) else plain_text(picture, "image")
    if not identity:
        raise CellError("no image: the cell is empty")
    return identity


def sample_of(row: Row, columns: Columns, root: Path, identity: str, split: str) -> Sample:
    """The sample of a row, its picture not yet opened. Raises CellError."""
    picture = row.cells.get(columns.image)
    image = picture if isinstance(picture, ParquetImage) else FileImage(picture_path(picture, root)[1])
    modality = plain_text(row.cells.get(columns.modality), "modality") if columns.modality else ""
    return Sample(
        id=identity,
        images=(image,),
        caption=caption_text(row.cells.get(columns.caption)),
        split=split,
        modality=modality or UNKNOWN,
        concepts=concept_ids(row.cells.get(columns.concepts)) if columns.concepts else (),
    )


def check_picture(entry: Entry) -> Entry:
    """Decodes the picture once; asks it for the modality that the table does not name."""
    if entry.sample is None:
        return entry
    image = entry.sample.images[0]
    try:
        image.load()
        if entry.sample.modality == UNKNOWN and isinstance(image, FileImage | ParquetImage):
            return replace(entry, sample=replace(entry.sample, modality=image.modality()))
    except ImageError as fault:
        return replace(entry, sample=None, reason=str(fault))
    return entry


def nothing_usable(path: Path, split: str, entries: Sequence[Entry], rejected: Sequence[Rejected]) -> str:
    """The message for a split without samples: what the table holds instead."""
    counts = {name: sum(entry.split == name for entry in entries) for name in SPLITS}
    found = ", ".join(f"{name} {count}" for name, count in counts.items())
    why = f"; {len(rejected)} rejected, the first: {rejected[0].id}: {rejected[0].reason}" if rejected else ""
    return f"dataset.path={path}: no usable row in split {split!r} (rows: {found}){why}"
