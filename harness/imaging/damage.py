"""Damage: what decoders raise on damaged pictures, and the one line that is said of it."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
    *(SyntaxError, TypeError, ValueError, struct.error, zlib.error, Image.DecompressionBombError),
)
"""What Pillow, pydicom, nibabel, numpy and gzip raise on damaged files; each ends as one ImageError."""


def reason(error: BaseException) -> str:
    """An error in one line; its kind where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__
