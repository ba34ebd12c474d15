"""A picture encoded in memory, for the tests of decoders."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from harness.imaging.files import StoredImage


@dataclass(frozen=True, slots=True)
class BytesImage(StoredImage):
    data: bytes

    @property
    def place(self) -> tuple[str | Path, str]:
        return "", ""

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)
