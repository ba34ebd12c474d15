"""Facts of one picture: size, format, digest of its pixels, and two signatures by which similar ones are found.

`examine` runs in worker processes. What it finds is kept by the digest of the picture's bytes, chunk by chunk, so
that a killed check goes on where it was and a repeated one decodes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from harness.contracts import ImageError, ImageSource, Stored
from harness.machine.pillow import FORMATS
from harness.store import digest
from harness.store.cache import Cache

VERSION = 1  # of the facts; a change of meaning raises it
GRID = 32  # pixels a side of the grey picture that the signatures are made from
THUMB = 16


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of one picture. `mode` and `format` are "" where they cannot be told; hex digits in the others.

    pixels: sha256 (half of it) of size and RGB values; hash: 64 bits that survive scaling and recompression;
    thumb: 16 x 16 grey values. `blank`: all pixels alike.
    """

    width: int
    height: int
    mode: str
    format: str
    pixels: str
    hash: str
    thumb: str
    blank: bool


def examine(images: Sequence[ImageSource], folder: Path) -> list[Facts | ImageError]:
    """The facts of each picture, or why there are none; what is new is in the cache afterwards, all or nothing."""
    cache = Cache(folder)
    keys = [_key(image) for image in images]
    known = cache.features.read([key for key in keys if isinstance(key, str)])
    fresh: dict[str, bytes] = {}
    found: list[Facts | ImageError] = []
    for image, key in zip(images, keys, strict=True):
        if isinstance(key, ImageError):
            found.append(key)
        elif key in known:
            found.append(Facts(**json.loads(known[key])))
        else:
            found.append(facts := facts_of(image))
            if isinstance(facts, Facts):  # a fault may lie with the disk, and is looked at again
                known[key] = fresh[key] = json.dumps(asdict(facts)).encode()
    if fresh:
        cache.features.write(fresh)
    cache.close()
    return found


def facts_of(image: ImageSource) -> Facts | ImageError:
    """The facts of a picture, which is decoded once; the error where it cannot be."""
    try:
        picture = image.load()
        form, mode = _stored_as(image)
    except ImageError as error:
        return error
    # Bilinear: a box has no say on where pixels lie at ratios such as 4.5, and scaled copies would differ.
    grey = np.asarray(picture.convert("L").resize((GRID, GRID), Image.Resampling.BILINEAR), np.float32)
    low_high: Any = picture.getextrema()
    header = f"{picture.width} {picture.height} ".encode()
    return Facts(
        width=picture.width,
        height=picture.height,
        mode=mode,
        format=form,
        pixels=hashlib.sha256(header + picture.tobytes()).hexdigest()[:32],
        hash=perceptual_hash(grey).tobytes().hex(),
        thumb=_thumb(grey).tobytes().hex(),
        blank=all(low == high for low, high in low_high),
    )


def perceptual_hash(grey: NDArray[np.float32]) -> NDArray[np.uint8]:
    """8 bytes: which of the 8 x 8 lowest frequencies (DCT-II) lie above their median. grey: 32 x 32.

    The signs of differences (dHash) would be cheaper, but black grounds leave most of them to chance.
    """
    basis = _basis()
    low = (basis @ grey @ basis.T).ravel()
    return np.packbits(low > np.median(low[1:]))  # the first is the brightness, which would pull the median


@cache
def _basis() -> NDArray[np.float32]:
    places = (np.arange(GRID) + 0.5) * np.pi / GRID
    basis: NDArray[np.float32] = np.cos(np.outer(np.arange(8), places)).astype(np.float32)
    return basis


def _thumb(grey: NDArray[np.float32]) -> NDArray[np.uint8]:
    side = GRID // THUMB
    blocks: NDArray[np.float32] = grey.reshape(THUMB, side, THUMB, side).mean(axis=(1, 3))
    return np.rint(blocks).astype(np.uint8)


def _key(image: ImageSource) -> str | ImageError:
    try:
        return digest(["picture facts", VERSION, image.digest()])
    except ImageError as error:
        return error


def _stored_as(image: ImageSource) -> tuple[str, str]:
    """Format and colour mode of the file, ("", "") where the source does not give its bytes or Pillow not its kind."""
    if not isinstance(image, Stored):
        return "", ""
    try:
        with image.open() as stream, Image.open(stream, formats=FORMATS) as stored:
            return stored.format or "", stored.mode
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return "", ""
