"""Identities and atomic files: the only place that decides what counts as the same thing and what counts as written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.contracts import CapBenchError, RequestError
from harness.machine.terminal import errors

SCHEMA = 1
"""Version of identities and file formats. A change of meaning raises it, so that old results are never mixed in."""

SHORT = 10  # hex digits in folder names: 40 bits, enough for any results folder; the manifest holds the whole identity


LINE_BREAKS = {ord(c): f"\\u{ord(c):04x}" for c in "\x85\u2028\u2029"}  # legal in JSON, line ends to many readers
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class Damaged(CapBenchError):
    """A file of the results folder is not what was written."""


def digest(value: Any) -> str:
    """Hex sha256 of a JSON value in canonical form (sorted keys, no blanks)."""
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- folders and whole files


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


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace a file in one step: after a crash it holds the old text or the new one, never a part.

    durable=False does not wait for the disk: for a file whose digest is compared before it is trusted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with draft.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    draft.replace(path)


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


# ---------------------------------------------------------------- identities


def same_identity(folder: Path, known: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse to go on in a folder that belongs to another identity, with a readable diff. Raises Damaged."""
    lines = difference(known, asked)
    if lines:
        shown = "; ".join(lines[:5])
        raise Damaged(f"{folder}: holds another identity ({shown}); move the folder away or use another results=FOLDER")


def difference(left: Any, right: Any, key: str = "") -> list[str]:
    """'key: left -> right' for every leaf in which two JSON values differ."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        lines = []
        for name in sorted({*left, *right}):
            child = f"{key}.{name}" if key else str(name)
            lines += difference(left.get(name), right.get(name), child)
        return lines
    plain_left, plain_right = (list(v) if isinstance(v, tuple) else v for v in (left, right))
    return [] if plain_left == plain_right else [f"{key}: {_brief(plain_left)} -> {_brief(plain_right)}"]


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


# ---------------------------------------------------------------- journals


class Journal:
    """Rows appended batch by batch, each with a checksum: what a killed process had finished stays finished.

    One JSON object a line; its last key, `check`, holds the first 8 hex digits of the sha256 of the rest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[dict[str, Any]]:
        """All whole rows. A torn last line is left out; damage before it raises Damaged with the line's number."""
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")
        bodies = []
        for number, line in enumerate(lines[:-1], start=1):
            body = _checked(line)
            if body is None:
                raise Damaged(
                    f"{self.path} line {number}: the checksum does not fit, the row was edited or damaged; "
                    "delete the line and repeat the command to make it again"
                )
            bodies.append(body)
        rows: list[dict[str, Any]] = json.loads(b"[" + b",".join(bodies) + b"]")  # one call: three times as fast
        return rows

    def latest(self) -> list[dict[str, Any]]:
        """One row per `id`, the last one, in the order in which the ids first came. Raises Damaged."""
        return list({row["id"]: row for row in self.rows()}.values())

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows and wait until they are on the disk."""
        self._drop_torn_line()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(b"".join(_line(row) for row in rows))
            file.flush()
            os.fsync(file.fileno())

    def put_in_order(self, ids: Sequence[str]) -> None:
        """Sort the rows like `ids`, those of one id by age and others to the end; in one step, or not at all."""
        rows, place = self.rows(), {id_: number for number, id_ in enumerate(ids)}
        sorted_ = sorted(rows, key=lambda row: place.get(row["id"], len(place)))
        if sorted_ != rows:
            write_text(self.path, b"".join(_line(row) for row in sorted_).decode())

    def _drop_torn_line(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb+") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole != len(content):
                file.truncate(whole)


def _line(row: Mapping[str, Any]) -> bytes:
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    text = text.translate(LINE_BREAKS)
    check = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f'{text[:-1]}{", " if row else ""}"check": "{check}"}}\n'.encode()


def _checked(line: bytes) -> bytes | None:
    """The JSON object that was written, None where it is not."""
    head, mark, tail = line.rpartition(b'"check": "')
    if not mark or len(tail) != 10:
        return None
    body = head.removesuffix(b", ") + b"}"
    if hashlib.sha256(body).hexdigest()[:8].encode() != tail[:8]:
        return None
    return body


# ---------------------------------------------------------------- one worker at a time


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a fit or run folder alone. The operating system frees the lock of a process that dies."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        errors.print(f"{folder.name}: another process works on it; waiting until it ends", markup=False)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def if_free(folder: Path) -> Iterator[bool]:
    """Hold a folder that no process holds. False at once, with nothing held, where one does or we may not write."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except (Timeout, PermissionError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


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
