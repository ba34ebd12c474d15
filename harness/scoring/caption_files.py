"""Caption files of others: csv, tab-separated or jsonl with an id and a caption column."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.contracts import RequestError
from harness.store import JournalRow
from harness.store.runs import Run

EXPECTED = 'expected an id column (its name ends in "id") and a column "caption"'


def read_captions(path: Path, setting: str) -> dict[str, str]:
    """Id -> caption in the order of the file. Raises RequestError naming the file, the line and what is wrong."""
    if not path.is_file():
        raise RequestError(f"{setting}={path}: expected a file, found none")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"{setting}={path}: expected UTF-8, got another encoding at byte {error.start}; save it as UTF-8"
        ) from None
    pairs = _jsonl(path, text, setting) if path.suffix == ".jsonl" else _table(path, text, setting)
    captions: dict[str, str] = {}
    for line, (name, caption) in pairs:
        if name in captions:
            raise RequestError(f"{setting}={path} line {line}: the id {name} was there before; every id once")
        captions[name] = caption
    if not captions:
        raise RequestError(f"{setting}={path}: expected captions, got no row")
    return captions


def _table(path: Path, text: str, setting: str) -> Iterator[tuple[int, tuple[str, str]]]:
    first = text.split("\n", 1)[0]
    reader = csv.reader(text.splitlines(keepends=True), delimiter="\t" if "\t" in first else ",")
    header = [name.strip().lower() for name in next(reader, [])]
    name_at, caption_at = _columns(header, f"{setting}={path}")
    for row in reader:
        if not row:
            continue
        if len(row) != len(header):
            raise RequestError(
                f"{setting}={path} line {reader.line_num}: expected {len(header)} cells, got {len(row)}; "
                "a caption with a comma must be in double quotes"
            )
        yield reader.line_num, (row[name_at].strip(), row[caption_at])


def _jsonl(path: Path, text: str, setting: str) -> Iterator[tuple[int, tuple[str, str]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RequestError(f"{setting}={path} line {number}: expected a JSON object ({error})") from None
        keys = {str(key).strip().lower(): value for key, value in row.items()} if isinstance(row, dict) else {}
        name_at, caption_at = _columns(list(keys), f"{setting}={path} line {number}")
        values = list(keys.values())
        yield number, (str(values[name_at]), "" if values[caption_at] is None else str(values[caption_at]))


def _columns(header: Sequence[str], where: str) -> tuple[int, int]:
    names = [index for index, name in enumerate(header) if name.endswith("id")]
    if not names or "caption" not in header:
        raise RequestError(f"{where}: {EXPECTED}, got {', '.join(header) or 'nothing'}")
    return names[0], header.index("caption")


@dataclass(frozen=True)
class CaptionFiles(Run):
    """Two caption files in the place of a run."""

    given: tuple[JournalRow, ...] = ()

    def read(self) -> list[JournalRow]:
        """The rows made from the files."""
        return list(self.given)


def paired_rows(captions_file: str, references_file: str) -> list[JournalRow]:
    """One row per reference; a reference without caption is a failed row, a caption without reference an error."""
    captions = read_captions(Path(captions_file), "captions")
    references = read_captions(Path(references_file), "references")
    unknown = [name for name in captions if name not in references]
    if unknown:
        raise RequestError(
            f"captions={captions_file}: {len(unknown)} ids are not in the references, first {unknown[0]}; "
            "both files must be of one split"
        )
    missing = "no caption in the file"
    return [JournalRow.of_texts(name, text, captions.get(name), missing) for name, text in references.items()]
