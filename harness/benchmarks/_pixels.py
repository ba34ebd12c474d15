"""Idefics3's preprocessing (SmolVLM) with the same resizes in the same order, and without what surrounds them.

transformers' Idefics3ImageProcessor turns the picture into an array and back around each resize, lays every tile on
white as RGBA, rescales and normalises in passes of their own and copies twice more for padding. Here the picture stays
Pillow's and of 8 bits until the tiles are cut, a grey one has one channel, and the numbers are made in one pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

LANCZOS = Image.Resampling.LANCZOS


@dataclass(frozen=True)
class Pixels:
    """longest_edge: of the whole picture, at most 4,096; tile: side of what the vision tower sees.

    split: its tiles and the whole, or the whole only.
    """

    longest_edge: int
    tile: int
    split: bool

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """(frames, 1 or 3, tile, tile) of 8 bits; the whole picture last. One channel stands for three alike."""
        frames = [np.asarray(frame) for frame in self.frames(image)]
        return torch.from_numpy(np.stack([f[None] if f.ndim == 2 else f.transpose(2, 0, 1) for f in frames]))

    def frames(self, image: Image.Image) -> list[Image.Image]:
        """The tiles row by row, then the whole picture."""
        image = image.resize(scaled(image.size, self.longest_edge), LANCZOS)
        if not self.split:
            return [image.resize((self.tile, self.tile), LANCZOS)]
        width, height = whole_tiles(image.size, self.tile)
        image = image.resize((width, height), LANCZOS)
        if max(width, height) <= self.tile:
            return [image]
        corners = [(x, y) for y in range(0, height, self.tile) for x in range(0, width, self.tile)]
        tiles = [image.crop((x, y, x + self.tile, y + self.tile)) for x, y in corners]
        return [*tiles, image.resize((self.tile, self.tile), LANCZOS)]


def scaled(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Width and height with the longer side at `longest`, the other one rounded down, then up to an even number.

    As _resize_output_size_rescale_to_max_len of transformers does; smaller pictures are enlarged.
    """
    width, height = size
    ratio = width / height
    if width >= height:
        other = int(longest / ratio)
        return longest, max(other + other % 2, 1)
    other = int(longest * ratio)
    return max(other + other % 2, 1), longest


def whole_tiles(size: tuple[int, int], tile: int) -> tuple[int, int]:
    """Width and height as multiples of the tile, the longer one first."""
    width, height = size
    ratio = width / height
    if width >= height:
        width = math.ceil(width / tile) * tile
        return width, math.ceil(int(width / ratio) / tile) * tile
    height = math.ceil(height / tile) * tile
    return math.ceil(int(height * ratio) / tile) * tile, height


def normalised(frames: torch.Tensor) -> torch.Tensor:
    """8 bits to float32 from -1 to 1, three channels."""
    return frames.to(torch.float32).mul_(2 / 255).sub_(1).expand(-1, 3, -1, -1)


def opened(path: Path, draft: int | None) -> Image.Image:
    """A picture file, grey left grey. draft: JPEGs may be decoded at 1/2, 1/4 or 1/8 but with no side below this."""
    image = Image.open(path)
    if draft is not None:
        image.draft(None, (draft, draft))
    return image if image.mode in ("L", "RGB") else image.convert("RGB")
