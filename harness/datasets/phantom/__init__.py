"""The embedded dataset: procedurally drawn CT, X-ray, MRI, ultrasound, angiography and PET pictures with captions.

No real picture or caption is used. Scores on it say that the harness works and nothing about medicine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from harness.contracts import NonNegative, Positive, Sample, Split
from harness.datasets._paths import known_split
from harness.datasets.phantom.draw import render
from harness.datasets.phantom.plan import draw_factors, generator
from harness.datasets.phantom.text import Style, write

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class PhantomImage:
    """A picture that is drawn when asked for."""

    seed: int
    split: str
    index: int
    size: int

    def load(self) -> Image.Image:
        """The picture as 8-bit RGB; a copy, because `render` keeps its own."""
        return render(self.seed, self.split, self.index, self.size).copy()

    def digest(self) -> str:
        """Hex sha256 of mode, size and pixel bytes."""
        image = render(self.seed, self.split, self.index, self.size)
        header = f"{image.mode} {image.width} {image.height} ".encode()
        return hashlib.sha256(header + image.tobytes()).hexdigest()


@dataclass(eq=False)
class Phantom:
    """A sample depends on (seed, split, index, size) alone; `style` changes its caption and not its picture.

    So a split that grows keeps its first samples, and two styles share pictures and factors.
    """

    name: str
    train: Positive
    valid: Positive
    test: Positive
    size: Annotated[int, Ge(32)]
    seed: NonNegative
    style: Style
    limit: Positive | None

    def load(self, split: str) -> Split:
        """The first `limit` samples of a split. Draws nothing: pictures are made when they are loaded."""
        count: int = getattr(self, known_split(self.name, split))
        count = count if self.limit is None else min(self.limit, count)
        return Split(split, tuple(self.sample(split, index) for index in range(count)))

    def sample(self, split: str, index: int) -> Sample:
        """One sample, counted from 0; its id counts from 1."""
        factors = draw_factors(self.seed, split, index)
        return Sample(
            id=f"PHANTOM_{split}_{index + 1:06d}",
            images=(PhantomImage(self.seed, split, index, self.size),),
            caption=write(factors, self.style, generator(self.seed, split, index, "words")),
            split=split,
            modality=factors.modality,
            concepts=factors.concepts,
            factors=factors.facts(),
        )
