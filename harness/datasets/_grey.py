"""Numbers of any range to 8-bit grey, and grey to RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.contracts import GREY

MAX_PIXELS = 89_478_485
"""Of one picture, Pillow's own threshold (0.25 GiB as RGB): checked by us, since Pillow only warns there."""


def to_uint8(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """low -> 0, high -> 255, clipped; not-a-number -> 0. All 0 when low = high."""
    span = high - low
    if not span > 0:
        return np.zeros(values.shape, np.uint8)
    share = np.clip((np.nan_to_num(values.astype(np.float64), nan=low) - low) / span, 0, 1)
    return (share * 255 + 0.5).astype(np.uint8)


def value_range(values: NDArray[Any]) -> tuple[float, float]:
    """The least and the greatest finite value; (0, 0) without any."""
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB that remembers whether it was grey: readers may then take one channel for all."""
    grey = image.mode in ("1", "L")
    if image.mode == "RGB":
        image.load()  # and no copy; the file may be closed
    else:
        image = image.convert("RGB")
    image.info[GREY] = grey
    return image
