"""Image-text similarity: the cosine of picture and caption in the space of a CLIP-like model, as CLIPScore scales it.

CLIPScore: Hessel et al. 2021, arXiv 2104.08718, 2.5 * max(cos, 0).
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping, Sequence
from typing import Annotated

import numpy as np

from harness.contracts import RUNTIME, Pair, RequestError, Score
from harness.encoders.pair_files import EMBEDDED, Kind
from harness.encoders.pairs import VERSION, Dtype, PairCheckpoint, PairVectors, Vector, content_of


class Similarity:
    """Picture against raw candidate. The reference is looked at for one thing only: two empty texts score 1.

    `cosine` is the plain one, `similarity` may exceed 1. `truncated` is 1 for a candidate that was not read to its end.
    An empty candidate scores 0. A picture that is missing or cannot be read gives no value but a reason.
    Sees no more than its encoder was taught. The embedded one tells modality, region, finding and side of phantom
    pictures; sizes, an arrow's colour and "no" before a finding do not move it, and on real pictures it says nothing.
    """

    values = ("truncated", "cosine", "similarity")
    needs = frozenset({"image"})
    higher_is_better = True

    def __init__(
        self,
        name: str,
        encoder: Kind,
        checkpoint: Annotated[str, RUNTIME],  # its content is hashed
        scale: float,
        clip_at_zero: bool,
        dtype: Dtype,
        batch_size: Annotated[int, RUNTIME],
    ) -> None:
        self.name, self.scale, self.clip_at_zero, self.batch_size = name, scale, clip_at_zero, batch_size
        self.checkpoint = PairCheckpoint(f"metric {name}", encoder, checkpoint, dtype)
        if checkpoint == EMBEDDED and encoder != "medimageinsight":
            raise RequestError(
                f"metric {name}.encoder: expected medimageinsight for the embedded checkpoint, got {encoder}; "
                f"set metric {name}.checkpoint to a folder or hub id"
            )

    def missing(self) -> str | None:
        """Missing part and the command that helps; None when all is there. Reads no weight."""
        return self.checkpoint.missing()

    def signature(self) -> str:
        """Name, version and options: what a value depends on besides picture and text."""
        clip = "yes" if self.clip_at_zero else "no"
        return f"{self.name}|v={VERSION}|{self.checkpoint.signature}|scale={self.scale:g}|clip_at_zero={clip}"

    def load(self, device: str, features: MutableMapping[str, bytes]) -> None:
        """Read the encoder. The vectors of pictures and texts are kept in `features`."""
        self._vectors = PairVectors(self.checkpoint, device, features, self.batch_size)

    def score(self, pairs: Sequence[Pair], references: Sequence[str]) -> list[Score]:
        """One score per pair; `references` are not used."""
        contents = [content_of(pair.image) for pair in pairs]
        sources = {name: pair.image for pair, (name, _) in zip(pairs, contents, strict=True) if name and pair.image}
        pictures, problems = self._vectors.pictures(sources)
        vectors = self._vectors.texts([pair.candidate for pair in pairs if pair.candidate])
        cut = {text: self._vectors.encoder.cut(text) for text in vectors}
        scores = []
        for pair, (name, reason) in zip(pairs, contents, strict=True):
            text = pair.candidate
            if name not in pictures:
                scores.append(Score({}, reason or problems[name]))
            elif text:
                scores.append(self._score(pictures[name], vectors[text], cut[text]))
            else:
                ruled = 0.0 if pair.reference else 1.0
                scores.append(Score(dict(zip(self.values, (0.0, ruled, ruled), strict=True))))
        return scores

    def _score(self, picture: Vector, text: Vector, cut: bool) -> Score:
        cosine = float(np.dot(picture, text))
        if not math.isfinite(cosine):
            return Score({}, "the encoder's vectors are not finite; use dtype=float32 or another checkpoint")
        kept = max(cosine, 0.0) if self.clip_at_zero else cosine
        return Score(dict(zip(self.values, (float(cut), cosine, self.scale * kept), strict=True)))
