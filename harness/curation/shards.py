"""Parquet shards of resized pictures: each made from samples, written in one step, known by what it was made from."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, features

from harness.contracts import ImageError, Rejected, Sample
from harness.store import SCHEMA, digest, file_digest, replacing

_Digests = tuple[str, ...] | ImageError  # of the source pictures of a row, in their order
GROUP = 16  # rows of a row group: what is read for one picture in random order
MARK = b"capbench"

COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("caption", pa.string()),
        ("modality", pa.string()),
        ("concepts", pa.list_(pa.string())),
        ("factors", pa.map_(pa.string(), pa.string())),
        ("task", pa.string()),
        ("digests", pa.list_(pa.string())),  # of the sources
        ("images", pa.list_(pa.binary())),
    ]
)


@dataclass(frozen=True)
class Encoding:
    """How a picture is stored. size: pixels of the longer side at most."""

    size: int
    format: Literal["jpeg", "webp"]
    quality: int


@dataclass(frozen=True)
class ShardOrder:
    """A shard to be made. `checksum`: what the file should have if it is there from a finished preparation."""

    path: Path
    samples: tuple[Sample, ...]
    encoding: Encoding
    checksum: str | None


@dataclass(frozen=True)
class Shard:
    """A shard that is there. digests: of the source pictures of each row, by id."""

    split: str
    rows: int
    size: int
    sha256: str
    fresh: bool
    digests: Mapping[str, Sequence[str]]
    rejected: tuple[Rejected, ...]


def settings_of(encoding: Encoding) -> dict[str, Any]:
    """All that the stored pixels depend on besides the source, versions of the encoders included."""
    codec = {"jpeg": "jpg", "webp": "webp"}[encoding.format]
    turbo = features.version_feature("libjpeg_turbo") if encoding.format == "jpeg" else None
    return {
        "size": encoding.size,
        "format": encoding.format,
        "quality": encoding.quality,
        "pillow": PIL.__version__,
        "encoder": str(turbo or features.version(codec)),
    }


def make_shard(order: ShardOrder) -> Shard:
    """Write the shard unless it is there, whole and of the same sources."""
    digests = [_digests(sample) for sample in order.samples]
    key = _key(order, digests)
    rejected = _kept(order, key)
    fresh = rejected is None
    if rejected is None:
        rejected = _write(order, digests, key)
    lost = {entry.id for entry in rejected}
    sources = {
        sample.id: found
        for sample, found in zip(order.samples, digests, strict=True)
        if sample.id not in lost and not isinstance(found, ImageError)
    }
    size, checksum = order.path.stat().st_size, file_digest(order.path)
    return Shard(order.samples[0].split, len(sources), size, checksum, fresh, sources, rejected)


def encode(image: Image.Image, encoding: Encoding) -> bytes:
    """The picture, no longer than `size`, as JPEG or WebP; a grey one as grey, a third of the bytes and of the time."""
    small = image.copy()
    small.thumbnail((encoding.size, encoding.size), Image.Resampling.LANCZOS, reducing_gap=None)  # exact
    buffer = io.BytesIO()
    if encoding.format == "webp":
        small.save(buffer, "WEBP", quality=encoding.quality)
    else:
        pixels = np.asarray(small)
        grey = bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all())
        plain = small.getchannel(0) if grey else small
        plain.save(buffer, "JPEG", quality=encoding.quality, subsampling=0)
    return buffer.getvalue()


# ---------------------------------------------------------------- files


def _key(order: ShardOrder, digests: Sequence[_Digests]) -> str:
    """What the file depends on."""
    sources = [str(found) if isinstance(found, ImageError) else list(found) for found in digests]
    rows = [
        [s.id, s.split, s.caption, s.modality, list(s.concepts), dict(s.factors), s.task, source]
        for s, source in zip(order.samples, sources, strict=True)
    ]
    return digest([SCHEMA, settings_of(order.encoding), rows])


def _kept(order: ShardOrder, key: str) -> tuple[Rejected, ...] | None:
    """The ledger of a shard that need not be written; None for one that is missing, damaged or of other sources."""
    try:
        meta = json.loads((pq.read_schema(order.path).metadata or {})[MARK])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None
    if meta.get("key") != key or (order.checksum is not None and file_digest(order.path) != order.checksum):
        return None
    return tuple(Rejected(*entry) for entry in meta["rejected"])


def _write(order: ShardOrder, digests: Sequence[_Digests], key: str) -> tuple[Rejected, ...]:
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS.names}
    rejected = []
    for sample, found in zip(order.samples, digests, strict=True):
        try:
            row = _row(sample, found, order.encoding)
        except ImageError as error:
            rejected.append(Rejected(sample.id, str(error)))
            continue
        for name, value in row.items():
            columns[name].append(value)
    meta = {"key": key, "rejected": [[entry.id, entry.reason] for entry in rejected]}
    table = pa.table(columns, schema=COLUMNS.with_metadata({MARK: json.dumps(meta).encode()}))
    with replacing(order.path) as file:
        pq.write_table(
            table,
            file,
            row_group_size=GROUP,
            compression="none",  # pictures are compressed already
            use_dictionary=False,
            write_page_checksum=True,
        )
    return tuple(rejected)


def _row(sample: Sample, digests: _Digests, encoding: Encoding) -> dict[str, Any]:
    if isinstance(digests, ImageError):
        raise digests
    return {
        "id": sample.id,
        "split": sample.split,
        "caption": sample.caption,
        "modality": sample.modality,
        "concepts": list(sample.concepts),
        "factors": list(sample.factors.items()),
        "task": sample.task,
        "digests": list(digests),
        "images": [encode(image.load(), encoding) for image in sample.images],
    }


def _digests(sample: Sample) -> _Digests:
    try:
        return tuple(image.digest() for image in sample.images)
    except ImageError as error:
        return error
