"""Pillow: the formats it is asked for, what it raises on damaged files, and the one line that is said of that."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
"""Nothing else is tried: Pillow knows some 40 formats, one of which starts Ghostscript."""

DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
    *(SyntaxError, TypeError, ValueError, struct.error, zlib.error, Image.DecompressionBombError),
)
"""Of headers and of pixels; pydicom, nibabel, numpy and gzip raise the same, and errors of their own."""


def reason(error: BaseException) -> str:
    """An error in one line; its kind where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__
