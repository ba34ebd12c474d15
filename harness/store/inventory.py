"""Inventory of a results folder: its runs and fits with their states, sizes and users."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.store import Damaged, busy, find_folders, read_manifest
from harness.store.runs import short_id


@dataclass(frozen=True)
class Item:
    """One folder below fits/ or runs/. `fit_id` of a run is its fit's; `users` counts the runs of a fit.

    status: ok, partial, failed, damaged (no readable manifest), running (held by a process) or unfinished. Bytes
    include the checkpoints'.
    """

    kind: str
    folder: Path
    status: str
    seed: int | None
    finished_at: str
    fit_id: str
    bytes: int
    checkpoint_bytes: int = 0
    users: int | None = None

    @property
    def id(self) -> str:
        """The hash at the end of the folder's name."""
        return short_id(self.folder)

    @property
    def orphaned(self) -> bool:
        """Whether this is a finished fit that no run uses."""
        return self.kind == "fit" and self.status == "ok" and not self.users


def inventory(results: Path) -> list[Item]:
    """Every fit and run, fits first, by name."""
    runs = [_item("run", folder) for folder in find_folders(results / "runs")]
    users = Counter(run.fit_id for run in runs)
    open_runs = [run.folder.name for run in runs if run.status in ("running", "unfinished", "damaged")]
    fits = []
    for folder in find_folders(results / "fits"):
        item = _item("fit", folder)
        waiting = sum(_may_use(name, folder.name) for name in open_runs)
        fits.append(replace(item, users=users[item.fit_id] + waiting))
    return [*fits, *runs]


def _item(kind: str, folder: Path) -> Item:
    try:
        manifest: dict[str, Any] | None = read_manifest(folder)
        status = str(manifest["status"]) if manifest else "running" if busy(folder) else "unfinished"
    except Damaged:
        manifest, status = None, "damaged"
    row = manifest["row"] if manifest else {}
    return Item(
        kind=kind,
        folder=folder,
        status=status,
        seed=_seed(row, manifest, folder),
        finished_at=str(row.get("finished_at") or _changed(folder)),
        fit_id=short_id(folder) if kind == "fit" else str(row.get("fit_id") or ""),
        bytes=disk_use(folder),
        checkpoint_bytes=disk_use(folder / "checkpoints"),
    )


def _seed(row: dict[str, Any], manifest: dict[str, Any] | None, folder: Path) -> int | None:
    known = row.get("seed", (manifest or {}).get("seeds", {}).get("fit"))
    named = re.search(r"-s(\d+)-[0-9a-f]+$", folder.name)
    return known if known is not None else int(named[1]) if named else None


def _changed(folder: Path) -> str:
    return datetime.fromtimestamp(folder.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _may_use(run: str, fit: str) -> bool:
    """Whether a run that is not finished, so that only its name is known, could be one of this fit's.

    The name of a run is that of its fit with prompt style and, in some cases, modality source before the seed.
    """
    stem, _, seed = fit.rpartition("-")[0].rpartition("-")
    run_stem, _, run_seed = run.rpartition("-")[0].rpartition("-")
    return run_seed == seed and f"{run_stem}-".startswith(f"{stem}-")


# ---------------------------------------------------------------- sizes and ages in words


def disk_use(path: Path) -> int:
    """Bytes of a file or of all files below a folder. Links count as what they are, nothing behind them."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size if path.is_symlink() or path.exists() else 0
    return sum(os.lstat(os.path.join(root, name)).st_size for root, _, names in os.walk(path) for name in names)  # noqa: PTH118 (ten times faster over many files)


def age(finished_at: str, now: datetime | None = None) -> str:
    """How long ago a UTC time was: '5 min', '3 h', '12 d'."""
    then = datetime.strptime(finished_at, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    minutes = max(int(((now or datetime.now(UTC)) - then).total_seconds()) // 60, 0)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} d"


def patterns(modules: Iterable[str]) -> dict[str, int]:
    """Module names with their layer numbers as '*', and how many there are of each."""
    return dict(Counter(re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name) for name in modules))


def plain(value: Any) -> str:
    """A value in one line for people."""
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
