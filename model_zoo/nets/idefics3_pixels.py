"""Idefics3's preprocessing (SmolVLM) with the same resizes in the same order, and without what surrounds them.

transformers' image processor turns the picture into an array and back around each resize, lays every tile on white as
RGBA, rescales and normalises in passes of their own and copies twice more for padding. Here the picture stays Pillow's
and of 8 bits until the tiles are cut, a grey one has one channel, and the numbers are made in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, Idefics3ImageProcessor

from harness.contracts import GREY, RequestError

LONGEST = 4096  # of the whole picture; transformers bounds it there by a further rule
EVERY = ("do_resize", "do_rescale", "do_normalize", "do_pad", "do_convert_rgb")


class Tiles(NamedTuple):
    """(frames, 1 or 3, tile, tile) of 8 bits, the whole picture last, and the grid of the others (0, 0: none)."""

    frames: torch.Tensor
    rows: int
    columns: int


class QuickImageProcessor(Idefics3ImageProcessor):
    """Idefics3ImageProcessor for decoded RGB pictures: the same values, up to 1e-6, in a fraction of the time."""

    def preprocess(
        self,
        images: Sequence[Sequence[Image.Image]],
        return_row_col_info: bool | None = None,
        return_tensors: str | None = None,
        input_data_format: str | None = None,
    ) -> BatchFeature:
        """pixel_values (batch, frames, 3, tile, tile) in float32, pixel_attention_mask, rows and cols of the grids."""
        edge, tile = self.size["longest_edge"], self.max_image_size["longest_edge"]
        made = [[cut(i, edge, tile, self.resample, split=self.do_image_splitting) for i in row] for row in images]
        most = max(sum(len(one.frames) for one in row) for row in made)
        values = torch.zeros(len(made), most, 3, tile, tile)
        mask = torch.zeros(len(made), most, tile, tile, dtype=torch.int64)
        for place, row in enumerate(made):
            start = 0
            for one in row:
                stop = start + len(one.frames)
                self._normalise(one.frames, values[place, start:stop])
                mask[place, start:stop] = 1
                start = stop
        found = BatchFeature({"pixel_values": values, "pixel_attention_mask": mask})
        if return_row_col_info:
            found["rows"] = [[one.rows for one in row] for row in made]
            found["cols"] = [[one.columns for one in row] for row in made]
        return found

    def check(self, where: str) -> None:
        """Refuse options under which the values would be others. Raises RequestError."""
        off = [name for name in EVERY if not getattr(self, name)]
        if off:
            raise RequestError(f"{where}: expected {', '.join(off)} to be true, got false; use the published file")
        if not 0 < self.size.get("longest_edge", 0) <= LONGEST:
            raise RequestError(f"{where}: expected size.longest_edge from 1 to {LONGEST}, got {self.size}")

    def _normalise(self, frames: torch.Tensor, into: torch.Tensor) -> None:
        """(frames, 1 or 3, tile, tile) of 8 bits to (frames, 3, tile, tile) in float32."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.image_mean, self.image_std))
        torch.mul(frames, self.rescale_factor / std, out=into)
        into.sub_(mean / std)


def cut(image: Image.Image, longest_edge: int, tile: int, resample: int, *, split: bool) -> Tiles:
    """A picture as the vision tower sees it: tiles row by row, then the whole; `split` off: the whole only."""
    filter_ = Image.Resampling(resample)
    if image.info.get(GREY):
        image = image.getchannel(0)
    image = image.resize(scaled(image.size, longest_edge), filter_)
    if not split:
        return Tiles(_stacked([image.resize((tile, tile), filter_)]), 0, 0)
    width, height = whole_tiles(image.size, tile)
    image = image.resize((width, height), filter_)
    if max(width, height) <= tile:
        return Tiles(_stacked([image]), 0, 0)
    corners = [(x, y) for y in range(0, height, tile) for x in range(0, width, tile)]
    tiles = [image.crop((x, y, x + tile, y + tile)) for x, y in corners]
    return Tiles(_stacked([*tiles, image.resize((tile, tile), filter_)]), height // tile, width // tile)


def count(size: tuple[int, int], longest_edge: int, tile: int, *, split: bool) -> int:
    """The frames of a picture of (width, height): its tiles and the whole."""
    width, height = whole_tiles(scaled(size, longest_edge), tile)
    tiles = (width // tile) * (height // tile)
    return tiles + 1 if split and tiles > 1 else 1


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


def _stacked(frames: Sequence[Image.Image]) -> torch.Tensor:
    arrays = [np.asarray(frame) for frame in frames]
    return torch.from_numpy(np.stack([a[None] if a.ndim == 2 else a.transpose(2, 0, 1) for a in arrays]))
