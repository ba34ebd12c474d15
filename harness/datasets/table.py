"""A table of pictures and captions: CSV, TSV, JSON Lines or Parquet, pictures in files or inside the Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from harness.contracts import RUNTIME, SPLITS, UNKNOWN, Rejected, RequestError, Sample, Split
from harness.datasets._paths import as_path, given_folder, known_split
from harness.datasets._reading import Reading
from harness.datasets._split import with_raw
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
from harness.datasets._table_rows import SUFFIXES, TableRow, TableRows, read_rows
from harness.datasets._wording import Clean
from harness.imaging.files import FileImage, StoredImage
from harness.imaging.parquet import ParquetImage
from harness.imaging.view import View, view_of
from harness.store.files_cache import Memo

Columns = Mapping[str, str]
"""Kind -> the table's name of the column, for those that it has."""
KINDS = ("image", "caption", "id", "split", "modality", "concepts")


@dataclass(frozen=True)
class Entry:
    """A row under judgement: its sample, or the reason against it, or neither for one of another split.

    A split of None: it could not be told.
    """

    line: int
    id: str
    split: str | None = None
    sample: Sample | None = None
    reason: str = ""


@dataclass(eq=False)
class Table(Reading):
    """Your own data. Every row becomes a sample or a line in the ledger of rejected rows.

    Optional columns (None): `id`, `split`, `modality`, `concepts` are used where the table has them. Without ids the
    image path is the id; without splits each row is dealt to one by its id; without modality DICOM files tell theirs.
    """

    path: Annotated[str | None, RUNTIME]
    image_column: str
    caption_column: str
    id_column: str | None
    split_column: str | None
    modality_column: str | None
    concepts_column: str | None
    shares: dict[str, float]
    view: dict[str, int | str | None]

    def __post_init__(self) -> None:
        """Check ranges. Raises RequestError."""
        super().__post_init__()
        self._view, shares = view_of(self.view), self.shares
        if set(shares) != set(SPLITS) or min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
            raise RequestError(f"dataset.shares: expected shares of {', '.join(SPLITS)} that sum up to 1, got {shares}")

    def load(self, split: str) -> Split:
        """The usable rows of one split in the table's order, or a sample of them."""
        known_split(self.name, split)
        path = self._path()
        rows = read_rows(path)
        if not rows.rows:
            raise RequestError(f"dataset.path={path}: expected rows, got none; is it the right file?")
        root = given_folder("dataset.root", self.root or str(path.parent))
        entries = self._judge(rows, self._columns(rows.columns), root, split)
        lines = {entry.id: entry.line for entry in entries if entry.sample}
        samples, others = self.choose([e.sample for e in entries if e.sample and e.split == split], split)
        rejected = [(e.line, Rejected(e.id, e.reason)) for e in entries if not e.sample and e.split in (split, None)]
        rejected += [(lines[row.id], row) for row in others]
        rejected.sort(key=lambda pair: pair[0])
        ledger = tuple(Rejected(row.id, f"line {line}: {row.reason}") for line, row in rejected)
        if not samples:
            raise RequestError(nothing_usable(path, split, entries, ledger))
        return Split(split, tuple(samples), ledger)

    def _path(self) -> Path:
        if self.path is None or self.path in ("", "???"):
            kinds = ", ".join(SUFFIXES)
            raise RequestError(f"dataset.path: expected a table ({kinds}), got none; add dataset.path=FILE")
        return as_path(self.path)

    def _columns(self, found: Sequence[str]) -> Columns:
        names = {kind: find_column(getattr(self, f"{kind}_column"), kind, found, f"{kind}_column") for kind in KINDS}
        return {kind: name for kind, name in names.items() if name is not None}

    def _judge(self, rows: TableRows, columns: Columns, root: Path, wanted: str) -> list[Entry]:
        """Everything that can be told without opening a picture."""
        first: dict[str, int] = {}
        entries = []
        for row in rows.rows:
            entry = self._entry(row, columns, root, wanted)
            if entry.split is not None and first.setdefault(entry.id, row.line) != row.line:
                reason = f"id {entry.id!r} is already used in line {first[entry.id]}"
                entry = replace(entry, sample=None, reason=reason)
            entries.append(entry)
        return entries

    def _entry(self, row: TableRow, columns: Columns, root: Path, wanted: str) -> Entry:
        identity, split = f"line {row.line}", None
        if row.fault:
            return Entry(row.line, identity, reason=row.fault)
        try:
            identity = row_id(row, columns)
            split = self._split(row, columns, identity)
            if split != wanted:
                return Entry(row.line, identity, split)
            image = picture_of(row.cells.get(columns["image"]), root, self._view, self.memo)
            return Entry(row.line, identity, split, sample_of(row, columns, image, (identity, split), self.clean))
        except CellError as fault:
            return Entry(row.line, identity, split, reason=str(fault))

    def _split(self, row: TableRow, columns: Columns, identity: str) -> str:
        return (
            split_name(row.cells.get(columns["split"])) if "split" in columns else shared_split(identity, self.shares)
        )


def row_id(row: TableRow, columns: Columns) -> str:
    """The id column, else the image path as given, else the row's number for pictures inside a Parquet file."""
    if "id" in columns:
        identity = plain_text(row.cells.get(columns["id"]), "id")
        if not identity:
            raise CellError("id is empty")
        return identity
    picture = row.cells.get(columns["image"])
    identity = str(row.line) if isinstance(picture, ParquetImage) else plain_text(picture, "image")
    if not identity:
        raise CellError("no image: the cell is empty")
    return identity


def picture_of(cell: object, root: Path, view: View, memo: Memo | None) -> StoredImage:
    """The picture that a cell names or holds, not yet opened. Raises CellError."""
    if isinstance(cell, ParquetImage):
        return replace(cell, view=view, memo=memo)
    return FileImage(picture_path(cell, root)[1], view=view, memo=memo)


def sample_of(row: TableRow, columns: Columns, image: StoredImage, place: tuple[str, str], clean: Clean) -> Sample:
    """The sample of a row, by its id and split. Raises CellError."""
    modality = plain_text(row.cells.get(columns["modality"]), "modality") if "modality" in columns else ""
    raw = row.cells.get(columns["caption"])
    caption = caption_text(raw, clean)
    return Sample(
        id=place[0],
        images=(image,),
        caption=caption,
        split=place[1],
        modality=modality or UNKNOWN,
        concepts=concept_ids(row.cells.get(columns["concepts"])) if "concepts" in columns else (),
        factors=with_raw({}, str(raw), caption),
    )


def nothing_usable(path: Path, split: str, entries: Sequence[Entry], rejected: Sequence[Rejected]) -> str:
    """The message for a split without samples: what the table holds instead."""
    counts = {name: sum(entry.split == name for entry in entries) for name in SPLITS}
    found = ", ".join(f"{name} {count}" for name, count in counts.items())
    why = f"; {len(rejected)} rejected, the first: {rejected[0].id}: {rejected[0].reason}" if rejected else ""
    return f"dataset.path={path}: no usable row in split {split!r} (rows: {found}){why}"
