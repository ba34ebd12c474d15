"""Canvas: the sheet that a phantom's body parts are painted on."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.datasets.phantom.plan import Factors

Spot = tuple[float, float]
Field = NDArray[np.float32]
Mask = NDArray[np.bool_]


@lru_cache(maxsize=8)
def grid(size: int) -> tuple[Field, Field]:
    """x to the right and y downwards, both from -1 to 1."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j].astype(np.float32)
    return x, y


class Canvas:
    """Pixels in [0, 1] with coordinates in [-1, 1], the factors to paint and the picture's own random numbers."""

    def __init__(self, rng: np.random.Generator, size: int, factors: Factors) -> None:
        self.rng, self.size, self.factors = rng, size, factors
        self.x, self.y = grid(size)
        self.pixels: Field = np.zeros((size, size), np.float32)

    @property
    def sign(self) -> int:
        """+1 for left: by the radiological convention the patient's left is on the right of the picture."""
        return -1 if self.factors.side == "right" else 1

    @property
    def radius(self) -> float:
        """Of a finding, growing with its size in millimetres: 0.11 for 6 mm, 0.21 for 45 mm."""
        return 0.095 + 0.0026 * self.factors.millimetres

    def jitter(self, width: float) -> float:
        """A random shift between -width and width."""
        return float(self.rng.uniform(-width, width))

    def ellipse(self, x: float, y: float, a: float, b: float, angle: float = 0.0) -> Mask:
        """Centre, half axes and rotation in radians."""
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        u, v = self.x - np.float32(x), self.y - np.float32(y)
        across, along = (u * cos + v * sin) / np.float32(a), (v * cos - u * sin) / np.float32(b)
        inside: Mask = across * across + along * along <= 1
        return inside

    def disc(self, spot: Spot, radius: float) -> Mask:
        """A circle."""
        return self.ellipse(spot[0], spot[1], radius, radius)

    def texture(self, cells: int) -> Field:
        """A smooth random field of unit scale: coarse noise, enlarged."""
        coarse = Image.fromarray(self.rng.normal(size=(cells, cells)).astype(np.float32))
        return np.asarray(coarse.resize((self.size, self.size), Image.Resampling.BICUBIC))
