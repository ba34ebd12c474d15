"""The content hash of files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def hash_files(root: Path, files: Iterable[Path]) -> str:
    """Hex sha256 over names (relative to `root`) and bytes, whatever the order the files are given in."""
    total = hashlib.sha256()
    for path in sorted(set(files)):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return total.hexdigest()
