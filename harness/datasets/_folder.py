"""Data folders: where tables, Parquet files, pictures in folders and in zip archives lie.

Pictures are found by listing, never by building a path from an id: gaps do no harm and no id leads out of the folder.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.contracts import RequestError
from harness.imaging.files import FileImage, StoredImage
from harness.imaging.zipped import ZipImage, zip_members
from harness.store.files_cache import Memo

DEPTH = 4  # folders below the root that are looked into
PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".dcm")
TABLES = (".csv", ".tsv", ".txt")
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
SPLIT_WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(SPLIT_WORDS, key=len, reverse=True))})(?![a-z])")
FLAT = ("captions", "concepts", "concepts_manual")
"""Tables whose name tells no split: those of an evaluator's folder, read as the split that is scored."""


@dataclass
class Pictures:
    """The pictures of one split by the name of their file without suffix; `twice` holds what is there two times."""

    found: dict[str, StoredImage] = field(default_factory=dict)
    twice: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Folder:
    """Files of a data folder. `tables` by (kind, split); `folders` and `zips` may hold pictures, None: of any split."""

    root: Path
    tables: Mapping[tuple[str, str], Path]
    parquet: Mapping[str, tuple[Path, ...]]
    licences: Path | None
    folders: tuple[tuple[str | None, Path], ...]
    zips: tuple[tuple[str | None, Path], ...]

    def hint(self) -> str:
        """For a message about missing pictures: folders that are links, which are not followed. "" without any."""
        links = sorted(path.name for path in self.root.iterdir() if path.is_symlink() and path.is_dir())
        return f"; links to folders are not followed ({', '.join(links)}): give the real place" if links else ""

    def pictures(self, split: str, memo: Memo | None) -> Pictures:
        """Those of one split. What is unpacked goes before what is still zipped, which is taken for the same."""
        pictures = Pictures()
        for folder in (path for of, path in self.folders if of in (split, None)):
            for entry in sorted(files_in(folder, self.root), key=lambda entry: entry.name):
                stem = stem_of(entry.name)
                if stem in pictures.found:
                    pictures.twice[stem] = str(Path(entry.path).relative_to(self.root))
                elif stem:
                    pictures.found[stem] = FileImage(entry.path, memo=memo)
        for of, archive in self.zips:
            for image in zipped(archive, of, split, memo):
                pictures.found.setdefault(stem_of(image.member.rpartition("/")[2]), image)
        return pictures


def open_folder(root: Path) -> Folder:
    """List a data folder. Raises RequestError when two tables could be the same one."""
    tables: dict[tuple[str, str], Path] = {}
    parquet: dict[str, list[Path]] = {}
    folders: list[tuple[str | None, Path]] = []
    zips: list[tuple[str | None, Path]] = []
    licences: Path | None = None
    for path, parts in walk(root):
        if path.is_dir():
            folders.append((split_of(parts), path))
        elif path.suffix.lower() == ".zip":
            zips.append((split_of(parts), path))
        elif path.suffix.lower() == ".parquet":
            parquet.setdefault(split_of(parts) or "", []).append(path)
        elif path.name.lower().startswith("license_information"):
            licences = path
        elif key := table_key(parts):
            if key in tables:
                raise RequestError(
                    f"dataset.root={root}: two files may be the {key[0]} of {key[1]}, {tables[key].relative_to(root)} "
                    f"and {path.relative_to(root)}; move one away"
                )
            tables[key] = path
    return Folder(root, tables, {k: tuple(v) for k, v in parquet.items()}, licences, tuple(folders), tuple(zips))


def walk(root: Path, parts: tuple[str, ...] = ()) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Folders, tables and archives below the root with their relative parts; pictures are left to be listed later.

    Links to folders are not followed: what leads out of the folder is not part of it.
    """
    yield root, parts
    below: list[str] = []
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.endswith(PICTURES) or entry.name.startswith((".", "__MACOSX")):
                continue
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.name)
            elif entry.name.lower().endswith((*TABLES, ".zip", ".parquet")) and entry.is_file():
                yield Path(entry.path), (*parts, entry.name)
    for name in sorted(below):
        if len(parts) < DEPTH:
            yield from walk(root / name, (*parts, name))


def files_in(folder: Path, root: Path) -> Iterator[os.DirEntry[str]]:
    """The pictures directly in a folder; a link counts when it leads to a file below the root."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lower().endswith(PICTURES) and not entry.name.startswith("."):
                if entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(root):
                    continue
                yield entry


def zipped(archive: Path, of: str | None, split: str, memo: Memo | None) -> Iterator[ZipImage]:
    """The pictures of one split in an archive: told by the folders inside, else by the archive's own name."""
    if of not in (split, None):
        return
    for member in zip_members(archive):
        *folders, name = member.filename.split("/")
        if name.startswith(".") or "__MACOSX" in folders or not name.lower().endswith(PICTURES):
            continue
        if (split_of(folders) or of) in (split, None):
            place = (member.header_offset, member.compress_size, member.file_size, member.CRC, member.compress_type)
            yield ZipImage(archive, member.filename, *place, memo=memo)


def split_of(parts: tuple[str, ...] | list[str]) -> str | None:
    """The split that the last telling part of a path names; None when none does, or one names several."""
    for part in reversed(parts):
        named = {SPLIT_WORDS[word] for word in SPLIT_WORD.findall(part.lower())}
        if named:
            return named.pop() if len(named) == 1 else None
    return None


def table_key(parts: tuple[str, ...]) -> tuple[str, str] | None:
    """Kind (captions, concepts, concepts_manual) and split of a table by its path; None for any other file."""
    stem, split = Path(parts[-1]).stem.lower(), split_of(parts)
    if "mapping" in stem or (split is None and stem not in FLAT):
        return None
    if "concept" in stem:
        return ("concepts_manual" if "manual" in stem else "concepts"), split or "test"
    return ("captions", split or "test") if "caption" in stem else None


def stem_of(name: str) -> str:
    """The name of a picture's file without its suffix, which is the picture's id."""
    return sys.intern(name.rpartition(".")[0])
