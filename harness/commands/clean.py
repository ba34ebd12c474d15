"""capbench clean: delete checkpoints of finished fits and other things that nothing needs.

usage: capbench clean [results=FOLDER] [what=KIND,...] [yes=true]

Lists what would be deleted and how much that frees, then asks. What a running command holds, and what a link leads to,
is kept. Without a terminal it needs yes=true.

  checkpoints   of finished fits, whose adapters stay
  leftovers     damaged caches that were set aside, drafts of killed processes
  cache         scores and features of pairs: they are computed again when needed
  orphans       finished fits that no run uses
  failed        runs that ended with an error, with what they had captioned
  logs          the whole errors of failed runs

Exit codes: 0 done, or nothing to do; 1 something could not be deleted; 2 the request was wrong or nobody to ask.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from harness import config
from harness.commands._options import parse
from harness.contracts import RequestError
from harness.machine.terminal import console, errors, listed
from harness.store import busy, if_free
from harness.store.inventory import Item, disk_use, inventory

SHOWN = 30  # targets
STALE = 3600.0  # seconds: no file is being written for so long under its draft's name
DELETED = ".deleted-"  # renamed first, so that a half-deleted fit is none; commands skip names with a dot


@dataclass(frozen=True)
class Settings:
    """The values of conf/clean.yaml."""

    results: str
    what: str
    yes: bool


@dataclass(frozen=True)
class Target:
    """Something to delete. `holder`: the fit or run folder that must be free for it; None: all of them must be."""

    kind: str
    path: Path
    holder: Path | None

    @property
    def bytes(self) -> int:
        """What deleting it frees."""
        return disk_use(self.path)


def main(argv: Sequence[str]) -> int:
    """List, ask, delete. Raises RequestError where nobody can be asked."""
    settings: Settings = config.options("clean", parse("clean", argv).overrides, Settings)
    results, kinds = Path(settings.results), _kinds(settings.what)
    if not (results / "runs").is_dir() and not (results / "fits").is_dir():
        raise RequestError(f"results={results}: expected a folder of results with runs or fits in it, found neither")
    wanted, kept = targets(results, kinds)
    _list(wanted, kept)
    if not wanted:
        console.print("nothing to delete")
        return 0
    if not (settings.yes or _confirmed()):
        console.print("nothing deleted")
        return 0
    # What is in use or needed may have changed while the question stood there.
    still = {target.path for target in targets(results, kinds)[0]}
    return _delete([target for target in wanted if target.path in still])


def targets(results: Path, kinds: Sequence[str]) -> tuple[list[Target], list[str]]:
    """What of these kinds can be deleted, and a line for everything that is kept though it was asked for."""
    items = inventory(results)
    used = [item.folder for item in items if busy(item.folder)]
    found, kept = [], []
    for target in (target for kind in kinds for target in _all(kind, results, items)):
        holders = [target.holder] if target.holder else [item.folder for item in items]
        holding = [folder.name for folder in holders if folder in used]
        if not _within(results, target.path):
            kept.append(f"{target.path}: kept, a link leads to it or out of it")
        elif holding:
            kept.append(f"{target.path}: kept, in use by a command that works on {holding[0]}")
        else:
            found.append(target)
    whole = {target.path for target in found}
    return [target for target in found if not whole & set(target.path.parents)], kept


def _within(results: Path, path: Path) -> bool:
    """Whether a path below the results folder is reached without any link, so that nothing outside is touched."""
    return path.resolve() == results.resolve() / path.relative_to(results)


# ---------------------------------------------------------------- kinds


def _checkpoints(item: Item) -> Path | None:
    """Those of a finished fit: an adapter is there, nothing resumes from them."""
    path = item.folder / "checkpoints"
    finished = item.kind == "fit" and item.status == "ok"
    return path if finished and (path.is_dir() or path.is_symlink()) else None


OF_ITEMS: dict[str, Callable[[Item], Path | None]] = {
    "checkpoints": _checkpoints,
    "orphans": lambda item: item.folder if item.orphaned else None,
    "failed": lambda item: item.folder if item.kind == "run" and item.status == "failed" else None,
}
KINDS = ("checkpoints", "leftovers", "cache", "orphans", "failed", "logs")


def _all(kind: str, results: Path, items: Sequence[Item]) -> Iterator[Target]:
    """Everything of a kind, whether or not it can be deleted now."""
    if kind in OF_ITEMS:
        found = ((OF_ITEMS[kind](item), item.folder) for item in items)
        yield from (Target(kind, path, holder) for path, holder in found if path)
    elif kind == "leftovers":
        yield from (Target(kind, path, None) for path in _leftovers(results))
    elif (results / kind).is_dir():
        yield Target(kind, results / kind, None)


def _leftovers(results: Path) -> Iterator[Path]:
    """Damaged caches that were set aside, and what killed processes left: drafts, half-deleted folders."""
    yield from sorted((results / "cache").rglob("*.damaged-*"))
    for root, folders, names in os.walk(results):
        for name in [name for name in folders if name.startswith(DELETED)]:
            yield Path(root) / name
            folders.remove(name)
        for path in (Path(root) / name for name in names if name.startswith(".") and name.endswith(".tmp")):
            if path.lstat().st_mtime < time.time() - STALE:
                yield path


def _kinds(what: str) -> list[str]:
    names = [name.strip() for name in what.split(",") if name.strip()]
    wrong = [name for name in names if name not in KINDS] if names else [what]
    if wrong:
        raise RequestError(f"what={wrong[0]}: expected one or several of {','.join(KINDS)}")
    return list(dict.fromkeys(names))


# ---------------------------------------------------------------- the work


def _list(wanted: Sequence[Target], kept: Sequence[str]) -> None:
    sizes = {target.path: target.bytes for target in wanted}
    listed([f"{one.kind:12} {decimal(sizes[one.path]):>10}  {one.path}" for one in wanted], SHOWN, "and {} more")
    for line in kept:
        console.print(line)
    if wanted:
        console.print(f"{len(wanted)} to delete, which frees {decimal(sum(sizes.values()))}")


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise RequestError("clean: nothing deleted, as there is no terminal to ask; add yes=true to delete the above")
    return console.input("delete? [y/N] ", markup=False).strip().lower() in ("y", "yes")


def _delete(wanted: Sequence[Target]) -> int:
    freed, failed = 0, 0
    for target in wanted:
        size = target.bytes
        with if_free(target.holder) if target.holder else nullcontext(True) as free:
            try:
                done = free and _remove(target.path)
            except OSError as error:
                errors.print(f"{target.path}: not deleted ({error.strerror})")
                failed += 1
                continue
        freed += size if done else 0
        if not free:
            console.print(f"{target.path}: kept, in use by now")
    console.print(f"freed {decimal(freed)}")
    if any(target.kind == "failed" for target in wanted):
        console.print("`capbench leaderboard` takes the deleted runs out of the tables")
    return 1 if failed else 0


def _remove(path: Path) -> bool:
    """Delete a file or a folder; links inside a folder are removed, never followed."""
    if path.is_dir():
        doomed = path if path.name.startswith(DELETED) else path.rename(path.with_name(f"{DELETED}{path.name}"))
        shutil.rmtree(doomed)
    else:
        path.unlink()
    return True
