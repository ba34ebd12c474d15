"""The content hash of files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from harness.store.file_hashes import content_hash


def hash_files(root: Path, files: Iterable[Path]) -> str:
    """Hex sha256 over names (relative to `root`) and bytes, whatever the order the files are given in."""
    total = hashlib.sha256()
    for path in sorted(set(files)):
        total.update(f"{path.relative_to(root).as_posix()} {content_hash(path).hex()}\n".encode())
    return total.hexdigest()
