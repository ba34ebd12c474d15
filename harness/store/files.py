"""Files and folders of a results folder: written in one step, held by one process at a time."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from harness.contracts import CapBenchError, RequestError
from harness.machine.terminal import errors


class Damaged(CapBenchError):
    """A file of the results folder is not what was written."""


def make_folder(path: Path, setting: str = "results") -> Path:
    """Create a folder and prove that it can be written. Raises RequestError naming the setting to change."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RequestError(
            f"{setting}={path}: expected a folder that can be written, got '{error.strerror}'; "
            f"choose another with {setting}=FOLDER"
        ) from error
    return path


def file_to_write(out: str | Path, *suffixes: str) -> Path:
    """The file of a setting `out`, in a folder that can be written; of one of some kinds. Raises RequestError."""
    path = Path(out)
    if suffixes and path.suffix not in suffixes:
        raise RequestError(f"out={out}: expected a file that ends in {', '.join(suffixes)}")
    make_folder(path.parent, "out")
    if path.is_dir():
        raise RequestError(f"out={out}: expected a file to write, got a folder")
    return path


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Replace a file in one step by what the block writes: after a crash it holds the old bytes or the new ones.

    A block that raises leaves the old ones. durable=False does not wait for the disk: for a file whose digest is
    compared before it is trusted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace a file in one step, see `replacing`; UTF-8, line ends as they are."""
    with replacing(path, durable=durable) as file:
        file.write(text.encode())


def csv_text(columns: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A csv file of a header and rows, each ended by a line feed."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and programs, in one step."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON. Raises Damaged when the file is no JSON, naming it and what to do."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise Damaged(
            f"{path}: expected JSON, got damage ({error}); move the file away and repeat the command"
        ) from None


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a fit or run; None when there is none yet. Raises Damaged."""
    path = folder / "manifest.json"
    if not path.is_file():
        return None
    manifest = read_json(path)
    if not isinstance(manifest, dict) or "identity" not in manifest or "status" not in manifest:
        raise Damaged(f"{path}: expected a manifest, got other JSON; move the file away and repeat the command")
    return manifest


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a fit or run folder alone. The operating system frees the lock of a process that dies."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        held = lock.acquire(timeout=1)
    except Timeout:
        errors.print(f"{folder.name}: another process works on it; waiting until it ends")
        held = lock.acquire()
    with held:
        yield


@contextmanager
def if_free(folder: Path) -> Iterator[bool]:
    """Hold a folder that no process holds. False at once, with nothing held, where one does or we may not write."""
    from filelock import FileLock, Timeout

    try:
        held = FileLock(folder / ".lock").acquire(timeout=0)
    except (Timeout, PermissionError):
        yield False
        return
    with held:
        yield True


def busy(folder: Path) -> bool:
    """Whether a living process holds a folder. Writes nothing."""
    if not (folder / ".lock").is_file():
        return False
    with if_free(folder) as free:
        return not free


def find_folders(parent: Path) -> Sequence[Path]:
    """The fit or run folders below a folder, in the order of their names."""
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
