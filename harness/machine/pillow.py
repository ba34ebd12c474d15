"""Pillow: the formats it is asked for, and what it raises on damaged files."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
"""Nothing else is tried: Pillow knows some 40 formats, one of which starts Ghostscript."""

DAMAGE = (
    *(AttributeError, EOFError, LookupError, MemoryError, OSError, OverflowError, RuntimeError, struct.error),
    *(SyntaxError, TypeError, ValueError, zlib.error, Image.DecompressionBombError),
)
"""Of headers and of pixels. Other decoders raise the same and errors of their own."""
