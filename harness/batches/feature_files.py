"""Feature files: tensors by key in a folder of bounded size. What was used longest ago goes first."""

from __future__ import annotations

import errno
import os
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load, save

from harness.machine.terminal import errors
from harness.store import replacing

SUFFIX = ".features"
CHECK = 4  # bytes behind the tensors: safetensors notices a file that is too short, but no flipped bit
FULL = {errno.ENOSPC, errno.EDQUOT}


class FeatureFiles:
    """A file per key, so that processes need no lock: each is written in one step and read as a whole or not at all.

    limit: bytes of all files. What this process has not touched makes room for what it writes, the oldest first; when
    that is not enough, `write` keeps nothing more. Losing a file costs time, never a result.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder, self.limit = folder, limit
        self.start = time.time() - 1  # file systems keep time in coarse steps
        self.used: float | None = None  # bytes, as far as this process knows
        self.full = False

    def has(self, key: str) -> bool:
        """Whether there is something under the key, whole or not."""
        return self._path(key).is_file()

    def read(self, key: str) -> dict[str, torch.Tensor] | None:
        """What was written; None when there is nothing, or nothing whole."""
        path = self._path(key)
        try:
            raw = path.read_bytes()
            os.utime(path)  # it is the newest now
        except FileNotFoundError:
            return None
        if zlib.crc32(memoryview(raw)[:-CHECK]).to_bytes(CHECK, "little") != raw[-CHECK:]:
            self._set_aside(path)
            return None
        tensors: dict[str, torch.Tensor] = load(raw[:-CHECK])
        return tensors

    def write(self, key: str, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Keep tensors under a key; False where there is no room for them."""
        raw = save({name: tensor.contiguous() for name, tensor in tensors.items()})
        if self.full or not self._room(len(raw) + CHECK):
            self.full = True
            return False
        try:
            with replacing(self._path(key), durable=False) as file:
                file.write(raw)
                file.write(zlib.crc32(raw).to_bytes(CHECK, "little"))
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.full = True
        return not self.full

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{SUFFIX}"

    def _room(self, size: int) -> bool:
        """Whether so many bytes more may be kept, after others have gone where need be."""
        if self.used is None or self.used + size > self.limit:
            self.used = self._evict(self.limit - size)
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def _evict(self, limit: float) -> float:
        """Delete the oldest files until all take no more than `limit` bytes, but none that this process has touched."""
        found = []
        for path in self.folder.glob("*/*"):
            try:
                facts = path.stat()
            except FileNotFoundError:
                continue  # another process was quicker
            found.append((facts.st_mtime, facts.st_size, path))
        used = float(sum(size for _, size, _ in found))
        for touched, size, path in sorted(found):
            if used <= limit or touched >= self.start:
                break
            path.unlink(missing_ok=True)
            used -= size
        return used

    def _set_aside(self, path: Path) -> None:
        aside = path.with_suffix(".damaged-1")  # one of a kind is enough; `capbench clean` knows the name
        with suppress(FileNotFoundError):  # another process was quicker
            path.replace(aside)
        errors.print(f"{path}: damaged; moved to {aside.name}, what it held is computed again")
