"""Picture files and encoded bytes to 8-bit RGB: PNG, JPEG, TIFF, BMP, WebP, DICOM and NIfTI."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
import pydicom
from PIL import Image, ImageOps, UnidentifiedImageError

from harness.contracts import UNKNOWN, ImageError
from harness.imaging.dicom import decode_dicom, modality_of_dicom
from harness.imaging.grey import MAX_PIXELS, rgb, to_uint8, value_range
from harness.imaging.nifti import decode_nifti, is_nifti
from harness.imaging.view import PLAIN, View
from harness.machine.pillow import DAMAGE, FORMATS, reason
from harness.store.files_cache import Memo

DECODERS = f"1 Pillow {PIL.__version__} pydicom {pydicom.__version__}"
"""Whose verdict on a picture is remembered; the first number is of the code here."""

READ = 1 << 20  # bytes at a time

WHITE_IS_ZERO = (262, 0)  # TIFF's PhotometricInterpretation; Pillow inverts it for 8 bit, but not for 16


@dataclass(frozen=True, slots=True)
class StoredImage(ABC):
    """A picture in a file, or in a part of one. `view` chooses among several; `memo` remembers digest and soundness."""

    view: View = field(default=PLAIN, kw_only=True)
    memo: Memo | None = field(default=None, kw_only=True, compare=False, repr=False)

    @property
    @abstractmethod
    def place(self) -> tuple[str | Path, str]:
        """The file, and the part of it that holds this picture ("": all of it)."""

    @abstractmethod
    def open(self) -> BinaryIO:
        """The encoded bytes. Raises ImageError when they cannot be read."""

    def load(self) -> Image.Image:
        """The picture as 8-bit RGB. Raises ImageError."""
        with self.open() as stream:
            return decode(stream, self._suffix(), self.view)

    def digest(self) -> str:
        """Hex sha256 of the bytes; another view of the same bytes has another one. Raises ImageError."""
        digest = self._ask("sha256", self._sha256)
        return (digest if self.view == PLAIN else hashlib.sha256(digest + repr(self.view).encode()).digest()).hex()

    def modality(self) -> str:
        """Modality that the bytes themselves name, "unknown" unless they are DICOM. Raises ImageError."""
        with self.open() as stream:
            return modality_of_dicom(stream) if kind_of(stream, self._suffix()) == "DICOM" else UNKNOWN

    def examine(self) -> str:
        """Decode it once and say its modality; what is sound is remembered. Raises ImageError for what is not."""
        return self._ask(f"sound {DECODERS} {self.view}", self._examine).decode()

    def _suffix(self) -> str:
        return Path(self.place[0]).suffix

    def _examine(self) -> bytes:
        self.load()
        return self.modality().encode()

    def _sha256(self) -> bytes:
        with self.open() as stream:
            total = hashlib.sha256()
            while part := stream.read(READ):
                total.update(part)
            return total.digest()

    def _ask(self, question: str, answer: Callable[[], bytes]) -> bytes:
        return self.memo.ask(question, *self.place, answer) if self.memo else answer()


@dataclass(frozen=True, slots=True)
class FileImage(StoredImage):
    """A picture in a file of its own."""

    path: str | Path  # a hundred thousand strings are lighter

    @property
    def place(self) -> tuple[str | Path, str]:
        """The file."""
        return self.path, ""

    def open(self) -> BinaryIO:
        """The file's bytes. Raises ImageError."""
        try:
            return Path(self.path).open("rb")
        except (OSError, ValueError) as error:
            raise ImageError(f"file cannot be read: {getattr(error, 'strerror', None) or error}") from error


def kind_of(stream: BinaryIO, suffix: str) -> str:
    """DICOM, NIfTI or "" by magic words; by the name for DICOM files so old that they lack one. Rewinds the stream."""
    head = stream.read(348)
    stream.seek(0)
    if head[128:132] == b"DICM" or suffix.lower() == ".dcm":
        return "DICOM"
    return "NIfTI" if is_nifti(head) else ""


def decode(stream: BinaryIO, suffix: str, view: View) -> Image.Image:
    """The picture as 8-bit RGB, its format told by its content. Raises ImageError."""
    try:
        kind = kind_of(stream, suffix)
        if kind:
            return decode_dicom(stream, view) if kind == "DICOM" else decode_nifti(stream, view)
        with Image.open(stream, formats=FORMATS) as image:
            select_frame(image, view)
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"picture of {image.width} x {image.height} pixels, more than {MAX_PIXELS}")
            return to_rgb(image)
    except UnidentifiedImageError:
        kinds = ", ".join((*FORMATS, "DICOM", "NIfTI"))
        raise ImageError(f"not a picture, or a damaged one: expected {kinds}") from None
    except DAMAGE as error:
        raise ImageError(f"picture cannot be decoded: {reason(error)}") from error


def select_frame(image: Image.Image, view: View) -> None:
    """Of a stack or an animation the view's frame, as for DICOM; of a JPEG with previews (MPO) the first."""
    frames = getattr(image, "n_frames", 1)
    image.seek(0 if image.format == "MPO" else view.index(frames))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to 8-bit RGB, turned upright as its EXIF data say.

    More than 8 bit: scaled by the picture's own range, because 12-bit data in 16-bit files would be black otherwise.
    Transparency: laid on black, the ground of radiology, where white margins would look like tissue.
    """
    tag, white = WHITE_IS_ZERO
    inverted = getattr(image, "tag_v2", {}).get(tag) == white
    ImageOps.exif_transpose(image, in_place=True)  # else it copies what stands upright already
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        shades = to_uint8(values, *value_range(values))
        image = Image.fromarray(255 - shades if inverted else shades)
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    return rgb(image)
