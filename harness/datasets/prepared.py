"""Shards that `capbench data prepare` has written: resized pictures, quick to read in any order."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from harness.contracts import RUNTIME, ImageError, Positive, Rejected, RequestError, Sample, Split
from harness.datasets._ids import only
from harness.datasets._paths import known_split
from harness.imaging.grey import rgb

AGAIN = "delete it and repeat the `capbench data prepare` that made it"
TEXT = ["id", "split", "caption", "modality", "concepts", "factors", "task", "digests"]
OPEN = 64  # shards kept open; 512 rows each is more than 30,000 pictures in random order


@dataclass(frozen=True)
class PreparedImage:
    """A picture in a shard, read with its row group when asked for.

    shard: the checksum of the shard, so that one that was made again is opened again; source: digest of source and
    preparation.
    """

    path: Path
    shard: str
    group: int
    offset: int
    place: int
    source: str

    def load(self) -> Image.Image:
        """The picture as 8-bit RGB. Raises ImageError."""
        try:
            with Image.open(self.open(), formats=("JPEG", "WEBP")) as image:
                return rgb(image)
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
            raise ImageError(f"{self.path}: a damaged picture ({error}); {AGAIN}") from error

    def digest(self) -> str:
        """Hex sha256 of the source's digest and the settings of the preparation."""
        return self.source

    def open(self) -> BinaryIO:
        """The encoded picture. Raises ImageError."""
        return io.BytesIO(images_of(self.path, self.shard, self.group)[self.offset][self.place].as_py())


@lru_cache(maxsize=OPEN)
def opened(path: Path, shard: str) -> pq.ParquetFile:
    """A shard of this checksum; damaged pages raise when they are read."""
    return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)


@lru_cache(maxsize=4)
def images_of(path: Path, shard: str, group: int) -> pa.ChunkedArray:
    """The pictures of one row group; neighbours are mostly asked for together. Raises ImageError."""
    try:
        return opened(path, shard).read_row_group(group, columns=["images"], use_threads=False).column("images")
    except (pa.ArrowException, OSError) as error:
        raise ImageError(f"{path}: damaged row group {group} ({error}); {AGAIN}") from error


@dataclass(eq=False)
class Prepared:
    """Resized pictures of another dataset in shards, with its ids, captions, modalities, concepts and ledger.

    The fingerprint follows the bytes of the source and the settings of the preparation, not the place or the shards.
    """

    name: str
    root: Annotated[str | None, RUNTIME]
    ids: Annotated[str | None, RUNTIME]
    limit: Positive | None

    def load(self, split: str) -> Split:
        """The rows of one split in the source's order; no picture is read. Raises RequestError on damaged shards."""
        known_split(self.name, split)
        folder, manifest = self._manifest()
        there = [shard for shard in manifest["shards"] if shard["split"] == split]
        if not there:
            found = ", ".join(sorted({shard["split"] for shard in manifest["shards"]}))
            raise RequestError(f"dataset.root={folder}: expected a split {split!r}, found {found or 'none'}")
        settings = manifest["settings_digest"]
        every = [sample for shard in there for sample in rows_of(folder / shard["file"], shard, settings)]
        samples, unlisted = only(every, self.ids, split)
        rejected = [Rejected(*entry) for entry in manifest["rejected"].get(split, ())]
        return Split(split, tuple(samples[: self.limit]), (*rejected, *unlisted))

    def _manifest(self) -> tuple[Path, dict[str, Any]]:
        if self.root is None:
            raise RequestError(
                f"dataset.root: expected a folder that `capbench data prepare` wrote, got none; "
                f"add dataset.root=FOLDER for dataset={self.name}"
            )
        folder = Path(self.root).expanduser()
        path = folder / "manifest.json"
        if not path.is_file():
            raise RequestError(
                f"dataset.root={folder}: expected manifest.json of a finished preparation, found none; "
                "run or repeat `capbench data prepare DATASET out=FOLDER`"
            )
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            whole = manifest["kind"] == "prepared" and {"shards", "settings_digest", "rejected"} <= set(manifest)
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise RequestError(f"{path}: expected the manifest of a preparation, got something else; {AGAIN}")
        return folder, manifest


def rows_of(path: Path, shard: Mapping[str, Any], settings: str) -> Iterator[Sample]:
    """The samples of one shard. Raises RequestError when it is not what the manifest says."""
    try:
        size = path.stat().st_size
        if size != shard["bytes"]:
            raise RequestError(f"{path}: expected a shard of {shard['bytes']} bytes, got {size}; {AGAIN}")
        file = opened(path, shard["sha256"])
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=TEXT, use_threads=False).to_pylist()
            place = partial(PreparedImage, path, shard["sha256"], group)
            yield from (sample_of(row, partial(place, offset), settings) for offset, row in enumerate(rows))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: a missing or damaged shard ({error}); {AGAIN}") from error


def sample_of(row: Mapping[str, Any], image: Callable[[int, str], PreparedImage], settings: str) -> Sample:
    """One row; image: (which of the row's pictures, its digest) -> the picture."""
    sources = [hashlib.sha256(f"{digest} {settings}".encode()).hexdigest() for digest in row["digests"]]
    return Sample(
        id=row["id"],
        images=tuple(image(place, source) for place, source in enumerate(sources)),
        caption=row["caption"],
        split=row["split"],
        modality=row["modality"],
        concepts=tuple(row["concepts"]),
        factors=dict(row["factors"]),
        task=row["task"],
    )
