"""Grey pictures in the place of all others: what a captioner says without seeing anything."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from harness.contracts import ImageSource, Query

MID = (128, 128, 128)


@dataclass(frozen=True)
class GreyImage:
    """A mid-grey picture as large as another one. Raises what that one raises: the same samples fail."""

    image: ImageSource

    def load(self) -> Image.Image:
        """Grey, RGB."""
        return Image.new("RGB", self.image.load().size, MID)

    def digest(self) -> str:
        """Of the other picture and that it is grey."""
        return hashlib.sha256(f"grey {self.image.digest()}".encode()).hexdigest()


def blanked(queries: Sequence[Query]) -> list[Query]:
    """The same questions, asked of grey pictures: a label in a question stays what it was."""
    return [
        replace(query, sample=replace(query.sample, images=tuple(GreyImage(image) for image in query.sample.images)))
        for query in queries
    ]
