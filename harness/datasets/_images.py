"""Picture files and encoded bytes to 8-bit RGB: PNG, JPEG, TIFF, BMP, WebP and DICOM."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from harness.contracts import UNKNOWN, ImageError
from harness.datasets._dicom import decode_dicom, modality_of_dicom
from harness.datasets._grey import MAX_PIXELS, to_uint8, value_range

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
"""Nothing else is tried: Pillow knows some 40 formats, one of which starts Ghostscript."""

WHITE_IS_ZERO = (262, 0)  # TIFF's PhotometricInterpretation; Pillow inverts it for 8 bit, but not for 16

DAMAGE = (
    *(AttributeError, EOFError, LookupError, MemoryError, OSError, OverflowError, RuntimeError, struct.error),
    *(SyntaxError, TypeError, ValueError, zlib.error, Image.DecompressionBombError),
)
"""What Pillow raises on damaged files; each ends as one ImageError."""


@dataclass(frozen=True)
class FileImage:
    """A picture in a file of its own."""

    path: Path

    def load(self) -> Image.Image:
        """The picture as 8-bit RGB. Raises ImageError."""
        with self._open() as stream:
            return decode(stream, self.path.suffix)

    def digest(self) -> str:
        """Hex sha256 of the file. Raises ImageError."""
        with self._open() as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def modality(self) -> str:
        """What the file itself says ("unknown" unless it is DICOM). Raises ImageError."""
        with self._open() as stream:
            return modality_of_dicom(stream) if is_dicom(stream, self.path.suffix) else UNKNOWN

    def _open(self) -> io.BufferedReader:
        try:
            return self.path.open("rb")
        except (OSError, ValueError) as error:
            raise ImageError(f"file cannot be read: {getattr(error, 'strerror', None) or error}") from error


@dataclass(frozen=True)
class BytesImage:
    """A picture encoded in memory."""

    data: bytes

    def load(self) -> Image.Image:
        """The picture as 8-bit RGB. Raises ImageError."""
        return decode(io.BytesIO(self.data), "")

    def digest(self) -> str:
        """Hex sha256 of the encoded bytes."""
        return hashlib.sha256(self.data).hexdigest()

    def modality(self) -> str:
        """What the bytes themselves say ("unknown" unless they are DICOM). Raises ImageError."""
        stream = io.BytesIO(self.data)
        return modality_of_dicom(stream) if is_dicom(stream, "") else UNKNOWN


def is_dicom(stream: BinaryIO, suffix: str) -> bool:
    """By the magic word after the preamble; by the name for old files that lack it. Rewinds the stream."""
    head = stream.read(132)
    stream.seek(0)
    return head[128:] == b"DICM" or suffix.lower() == ".dcm"


def decode(stream: BinaryIO, suffix: str) -> Image.Image:
    """The picture as 8-bit RGB, its format told by its content. Raises ImageError."""
    try:
        if is_dicom(stream, suffix):
            return decode_dicom(stream)
        with Image.open(stream, formats=FORMATS) as image:
            middle_frame(image)
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"picture of {image.width} x {image.height} pixels, more than {MAX_PIXELS}")
            return to_rgb(image)
    except UnidentifiedImageError:
        kinds = ", ".join((*FORMATS, "DICOM"))
        raise ImageError(f"not a picture, or a damaged one: expected {kinds}") from None
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ImageError(f"picture cannot be decoded: {reason}") from error


def middle_frame(image: Image.Image) -> None:
    """Of a stack or an animation the middle frame, as for DICOM; of a JPEG with previews (MPO) the first."""
    frames = getattr(image, "n_frames", 1)
    image.seek(0 if image.format == "MPO" else (frames - 1) // 2)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to 8-bit RGB, turned upright as its EXIF data say.

    More than 8 bit: scaled by the picture's own range, because 12-bit data in 16-bit files would be black otherwise.
    Transparency: laid on black, the ground of radiology, where white margins would look like tissue.
    """
    tag, white = WHITE_IS_ZERO
    inverted = getattr(image, "tag_v2", {}).get(tag) == white
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        grey = to_uint8(values, *value_range(values))
        return Image.fromarray(255 - grey if inverted else grey).convert("RGB")
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
