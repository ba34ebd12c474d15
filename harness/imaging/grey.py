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


def windowed(values: NDArray[Any], level: float, width: float) -> NDArray[np.uint8]:
    """Through a window: level - width / 2 -> 0, level + width / 2 -> 255."""
    return to_uint8(values, level - width / 2, level + width / 2)


def stretched(values: NDArray[Any], seen: NDArray[Any]) -> NDArray[np.uint8]:
    """Between the 0.5 and 99.5 percentiles of those values that are `seen`."""
    low, high = np.percentile(seen, (0.5, 99.5)) if seen.size else (0.0, 0.0)
    return to_uint8(values, float(low), float(high))


def value_range(values: NDArray[Any]) -> tuple[float, float]:
    """The least and the greatest finite value; (0, 0) without any."""
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


class Widened(Image.Image):
    """A grey picture as RGB. The three channels are made when they are first used, as Pillow itself reads files."""

    def __init__(self, grey: Image.Image) -> None:
        super().__init__()
        grey.load()
        grey.readonly = 1  # who writes into it gets a copy
        self._mode, self._size = "RGB", grey.size
        self.info = {**grey.info, GREY: True}
        self._grey = grey

    def load(self) -> Any:
        """Pillow calls this before it touches a pixel."""
        if self._im is None:
            self.im = self._grey.convert("RGB").im
        return super().load()

    def getchannel(self, channel: int | str) -> Image.Image:
        """Any of the three, at no cost as long as nothing else was asked for."""
        return self._grey if self._im is None else super().getchannel(channel)


def rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB that remembers whether it was grey: readers may then take one channel for all."""
    if image.mode in ("1", "L"):
        return Widened(image if image.mode == "L" else image.convert("L"))
    if image.mode == "RGB":
        image.load()  # and no copy; the file may be closed
    else:
        image = image.convert("RGB")
    image.info[GREY] = False
    return image
