"""The preparation of a dataset: its pictures, resized once, in Parquet shards for `dataset=prepared`.

A shard is written in one step and says in its metadata what it was made from and how; so a killed command goes on
with the next one, and a shard of changed sources is made again. manifest.json is written last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Interval

from harness import config
from harness.contracts import Dataset, NonNegative, Rejected, RequestError, Split, fingerprint
from harness.curation.check import load
from harness.curation.shards import Encoding, Shard, ShardOrder, make_shard, settings_of
from harness.machine import pool
from harness.machine.terminal import bar, console, listed
from harness.store import SCHEMA, difference, digest, make_folder, read_manifest, write_json


@dataclass(frozen=True)
class Settings:
    """The root-level values of conf/data_prepare.yaml."""

    out: str
    splits: list[str] | None
    size: Annotated[int, Interval(ge=16, le=65_500)]
    format: Literal["jpeg", "webp"]
    quality: Annotated[int, Interval(ge=1, le=100)]
    rows: Annotated[int, Interval(ge=1, le=1_000_000)]
    workers: NonNegative | None


def prepare(cell: config.Cell) -> int:
    """Write what is missing; 1 when a picture could not be decoded."""
    settings: Settings = config.settings(cell, Settings)
    workers = pool.count(settings.workers)
    dataset: Dataset = config.build(cell, "dataset")
    encoding = Encoding(settings.size, settings.format, settings.quality)
    out = make_folder(Path(settings.out), "out")
    checksums = _known(out, encoding)
    splits, unread = load(dataset, settings.splits)
    if settings.splits is not None and unread:
        raise RequestError(unread[0].detail)
    orders = list(_orders(splits, settings.rows, encoding, out, checksums))
    (out / "manifest.json").unlink(missing_ok=True)  # until all shards are right again, there is nothing to be read
    made = []
    with bar("shards", len(orders)) as advance:
        for shard in pool.in_order(make_shard, orders, workers):
            made.append(shard)
            advance(1)
    write_json(out / "manifest.json", _manifest(dataset.name, encoding, splits, orders, made))
    _report(out, made, splits)
    return int(any(shard.rejected for shard in made))


def _orders(
    splits: Sequence[Split], rows: int, encoding: Encoding, out: Path, checksums: Mapping[str, str]
) -> Iterator[ShardOrder]:
    for split in splits:
        for number, start in enumerate(range(0, len(split.samples), rows)):
            path = out / f"{split.name}-{number:05d}.parquet"
            yield ShardOrder(path, split.samples[start : start + rows], encoding, checksums.get(path.name))


def _known(out: Path, encoding: Encoding) -> dict[str, str]:
    """File -> sha256 of a finished preparation. Raises RequestError when it was made in another way."""
    manifest = read_manifest(out)
    if manifest is None:
        return {}
    lines = difference(manifest["identity"].get("settings"), settings_of(encoding))
    if lines:
        raise RequestError(f"out={out}: was prepared in another way ({'; '.join(lines)}); choose another out=FOLDER")
    return {shard["file"]: shard["sha256"] for shard in manifest["shards"]}


def _manifest(
    name: str, encoding: Encoding, splits: Sequence[Split], orders: Sequence[ShardOrder], made: Sequence[Shard]
) -> dict[str, Any]:
    fingerprints, rejected = {}, {}
    for split in splits:
        parts = [(o, m) for o, m in zip(orders, made, strict=True) if m.split == split.name]
        fingerprints[split.name] = fingerprint(
            (sample, shard.digests[sample.id])
            for order, shard in parts
            for sample in order.samples
            if sample.id in shard.digests  # the others were left out
        )
        failed = [entry for _, shard in parts for entry in shard.rejected]
        rejected[split.name] = [[entry.id, entry.reason] for entry in (*split.rejected, *failed)]
    settings = settings_of(encoding)
    return {
        "schema": SCHEMA,
        "kind": "prepared",
        "status": "ok",
        "identity": {"dataset": name, "source": fingerprints, "settings": settings},
        "settings_digest": digest(settings),
        "shards": [
            {"file": o.path.name, "split": m.split, "rows": m.rows, "bytes": m.size, "sha256": m.sha256}
            for o, m in zip(orders, made, strict=True)
        ],
        "rejected": rejected,
    }


def _report(out: Path, made: Sequence[Shard], splits: Sequence[Split]) -> None:
    fresh = sum(shard.fresh for shard in made)
    size = sum(shard.size for shard in made) / 2**20
    rows = sum(shard.rows for shard in made)
    console.print(
        f"{out}: {rows} rows in {len(made)} shards, {size:.1f} MiB; {fresh} of them written now", markup=False
    )
    ledgers: list[tuple[Rejected, ...]] = [*(s.rejected for s in splits), *(m.rejected for m in made)]
    failed = [entry for ledger in ledgers for entry in ledger]
    listed([f"  left out: {e.id}: {e.reason}" for e in failed], 10, "  and {} more, all named in manifest.json")
    console.print(f"read them with: dataset=prepared dataset.root={out}", markup=False)
