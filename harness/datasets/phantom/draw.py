"""Pixels of a phantom picture: the canvas, the finishing and the arrow. The body parts are in _phantom_anatomy."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from harness.datasets.phantom.anatomy import PAINTERS
from harness.datasets.phantom.canvas import Canvas, Spot
from harness.datasets.phantom.plan import ARROWS, draw_factors, generator


@lru_cache(maxsize=1024)  # the default splits fit: 50 MB at 128 pixels
def render(seed: int, split: str, index: int, size: int) -> Image.Image:
    """The picture as RGB, the same bytes each time. Cached, so a caller must copy before it changes anything."""
    factors = draw_factors(seed, split, index)
    canvas = Canvas(generator(seed, split, index, "pixels"), size, factors)
    spot = PAINTERS[factors.modality, factors.region](canvas)
    image = Image.fromarray(finish(canvas)).convert("RGB")
    if factors.arrow:
        add_arrow(canvas, image, spot, ARROWS[factors.arrow])
    return image


def finish(canvas: Canvas) -> NDArray[np.uint8]:
    """Blur, noise and exposure: what a detector adds."""
    pet = canvas.factors.modality == "PET"
    grey = Image.fromarray((np.clip(canvas.pixels, 0, 1) * 255).astype(np.uint8))
    blurred = grey.filter(ImageFilter.GaussianBlur(canvas.size * (0.03 if pet else 0.006)))
    pixels = np.asarray(blurred, np.float32) / 255
    pixels += canvas.rng.normal(0, 0.05 if pet else 0.025, pixels.shape).astype(np.float32)
    if pet:
        pixels = 1 - pixels  # PET is usually printed inverted
    pixels = pixels * np.float32(canvas.rng.uniform(0.92, 1.06)) + np.float32(canvas.jitter(0.02))
    return (np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def add_arrow(canvas: Canvas, image: Image.Image, spot: Spot, colour: tuple[int, int, int]) -> None:
    """An arrow that ends beside `spot`, coming from the middle of the picture so that it lies inside."""
    size = canvas.size
    target = (np.array(spot) + 1) / 2 * size
    angle = np.arctan2(-spot[1], -spot[0]) + canvas.jitter(1.2)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    tip = target + along * size * 0.09
    base = tip + along * size * 0.07
    pen = ImageDraw.Draw(image)
    pen.line([*base, *(tip + along * size * 0.18)], fill=colour, width=max(2, size // 40))
    corners = [tip, base + across * size * 0.04, base - across * size * 0.04]
    pen.polygon([(float(x), float(y)) for x, y in corners], fill=colour)
