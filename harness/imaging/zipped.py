"""Pictures inside zip archives, each read by a file handle of its own: workers and forks share no position."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from harness.contracts import ImageError, RequestError
from harness.imaging.files import StoredImage

LOCAL_HEADER = 30  # bytes before name and extra field
READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 1  # bit of the flags
MAX_BYTES = 1 << 28
"""Of one unpacked picture: three times what the largest one allowed has as RGB."""


@dataclass(frozen=True, slots=True)
class ZipImage(StoredImage):
    """A member of an archive: `start` of its local header, packed and unpacked size, check sum, method."""

    archive: Path
    member: str
    start: int
    packed: int
    size: int
    crc: int
    method: int

    @property
    def place(self) -> tuple[str | Path, str]:
        """The archive, and what its directory says of the member."""
        return self.archive, f"{self.member}\0{self.size}\0{self.crc}"

    def open(self) -> BinaryIO:
        """The unpacked bytes, never more than their declared size. Raises ImageError."""
        if max(self.size, self.packed) > MAX_BYTES:
            raise ImageError(f"picture of {self.size} bytes in {self.archive.name}, more than {MAX_BYTES}")
        try:
            data = self._unpacked()
        except (OSError, struct.error, zlib.error) as error:
            raise ImageError(f"cannot be read from {self.archive.name}: {error}") from error
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            raise ImageError(f"damaged in {self.archive.name}: its check sum does not fit")
        return io.BytesIO(data)

    def _unpacked(self) -> bytes:
        with self.archive.open("rb", buffering=0) as file:
            file.seek(self.start)
            name, extra = struct.unpack("<26xHH", file.read(LOCAL_HEADER))
            file.seek(name + extra, io.SEEK_CUR)
            data = file.read(self.packed)
        if self.method == zipfile.ZIP_STORED:
            return data
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, self.size + 1)


def zip_members(archive: Path) -> Iterator[zipfile.ZipInfo]:
    """The files of an archive. Raises RequestError for one that is torn, encrypted or packed in an unusual way."""
    try:
        with zipfile.ZipFile(archive) as file:
            members = [member for member in file.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise RequestError(f"{archive}: not a whole zip archive ({error}); fetch it again") from error
    for member in members:
        if member.compress_type not in READABLE or member.flag_bits & ENCRYPTED:
            raise RequestError(f"{archive}: {member.filename!r} is encrypted or packed in an unusual way; unpack it")
        yield member
