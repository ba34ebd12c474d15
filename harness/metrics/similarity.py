"""Image-text similarity: the cosine of picture and caption in the space of a CLIP-like model, as CLIPScore scales it.

CLIPScore: Hessel et al. 2021, arXiv 2104.08718, 2.5 * max(cos, 0).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.contracts import RUNTIME, ImageError, ImageSource, Pair, RequestError, Score
from harness.metrics._packages import missing_package, version
from harness.metrics._pair_files import EMBEDDED, Kind, digest, locate, missing

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

VERSION = 1  # raise it with any change of this file, _medimageinsight*.py or _clip_models.py that changes a value
CPU_PICTURES = 2  # at once: of 480 pixels by eight, a picture takes 15 % longer there
Vector = NDArray[np.float32]


class Encoder(Protocol):
    """Pictures and texts to vectors of length 1 in one space."""

    def images(self, pictures: Sequence[Image.Image]) -> Tensor:
        """(N, width), float32 on the CPU."""

    def texts(self, texts: Sequence[str]) -> Tensor:
        """(N, width), float32 on the CPU."""

    def cut(self, text: str) -> bool:
        """Whether the text is longer than the encoder reads."""


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
        dtype: Literal["float32", "bfloat16"],
        batch_size: Annotated[int, RUNTIME],
    ) -> None:
        self.name, self.encoder, self.checkpoint = name, encoder, checkpoint
        self.scale, self.clip_at_zero, self.dtype, self.batch_size = scale, clip_at_zero, dtype, batch_size
        if checkpoint == EMBEDDED and encoder != "medimageinsight":
            raise RequestError(
                f"metric {name}.encoder: expected medimageinsight for the embedded checkpoint, got {encoder}; "
                f"set metric {name}.checkpoint to a folder or hub id"
            )

    def missing(self) -> str | None:
        """Why the metric cannot run here and the command that helps; reads no weight."""
        return missing(self.encoder, self.checkpoint)

    def signature(self) -> str:
        """What a value depends on besides picture and text."""
        clip = "yes" if self.clip_at_zero else "no"
        return f"{self.name}|v={VERSION}|{self._embedding}|scale={self.scale:g}|clip_at_zero={clip}"

    def load(self, device: str, features: MutableMapping[str, bytes]) -> None:
        """Read the encoder. The vectors of pictures and texts are kept in `features` as float32."""
        self._features = features
        self._encoder = self._open(device)
        pictures = min(self.batch_size, CPU_PICTURES) if device == "cpu" else self.batch_size
        self._at_once = {"text": self.batch_size, "picture": pictures}

    def score(self, pairs: Sequence[Pair], references: Sequence[str]) -> list[Score]:
        """One score per pair; `references` are not used."""
        contents = [_content(pair.image) for pair in pairs]
        sources = {name: pair.image for pair, (name, _) in zip(pairs, contents, strict=True) if name and pair.image}
        problems: dict[str, str] = {}
        pictures = self._vectors("picture", list(sources), lambda names: self._look(names, sources, problems))
        # Neighbours of like length need little padding.
        texts = sorted({pair.candidate for pair in pairs if pair.candidate}, key=lambda text: (len(text), text))
        vectors = self._vectors("text", texts, lambda batch: _rows(batch, self._encoder.texts(batch)))
        cut = {text: self._encoder.cut(text) for text in texts}
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

    def _vectors(
        self,
        kind: Literal["text", "picture"],
        contents: Sequence[str],
        encode: Callable[[Sequence[str]], dict[str, Vector]],
    ) -> dict[str, Vector]:
        """The vector of each content; `encode` sees what is not kept yet, a batch at a time."""
        keys = {content: self._key(kind, content) for content in contents}
        kept = {content: self._features.get(key) for content, key in keys.items()}
        found = {content: np.frombuffer(raw, np.float32) for content, raw in kept.items() if raw is not None}
        todo = [content for content in contents if content not in found]
        for start in range(0, len(todo), self._at_once[kind]):
            new = encode(todo[start : start + self._at_once[kind]])
            found |= new
            for content, vector in new.items():
                self._features[keys[content]] = vector.tobytes()
        return found

    def _look(
        self, names: Sequence[str], sources: Mapping[str, ImageSource], problems: dict[str, str]
    ) -> dict[str, Vector]:
        """No more pictures are decoded at a time than the encoder takes. Fills `problems`."""
        loaded = {}
        for name in names:
            try:
                loaded[name] = sources[name].load()
            except ImageError as error:
                problems[name] = str(error)
        return _rows(list(loaded), self._encoder.images(list(loaded.values()))) if loaded else {}

    def _key(self, kind: str, content: str) -> str:
        """Vectors do not depend on scale and clipping, so two metrics with the same encoder share them."""
        return hashlib.sha256(f"similarity|v={VERSION}|{self._embedding}|{kind}|{content}".encode()).hexdigest()

    def _open(self, device: str) -> Encoder:
        import torch

        folder, dtype = self._folder, getattr(torch, self.dtype)
        if self.encoder == "medimageinsight":
            from harness.metrics._medimageinsight import MedImageInsight

            return MedImageInsight(folder, device, dtype)
        from harness.metrics._clip_models import OpenClipPair, TransformersPair

        return (TransformersPair if self.encoder == "transformers" else OpenClipPair)(folder, device, dtype)

    @cached_property
    def _folder(self) -> Path:
        folder, problem = locate(self.encoder, self.checkpoint), self.missing()
        if folder is None or problem:
            raise RequestError(f"metric {self.name}: {problem}")
        return folder

    @cached_property
    def _embedding(self) -> str:
        """What a vector depends on besides the picture or the text."""
        libraries = f"transformers={version('transformers')}"
        if self.encoder == "medimageinsight":  # CLIP's tokenizer cleans texts with ftfy where it is installed
            libraries += f"|ftfy={'none' if missing_package('ftfy', 'ftfy') else version('ftfy')}"
        if self.encoder == "open_clip":
            libraries += f"|open_clip={version('open_clip_torch')}"
        checkpoint = digest(self.encoder, self._folder)[:12]
        return f"encoder={self.encoder}|{libraries}|ckpt={checkpoint}|dtype={self.dtype}"


def _content(image: ImageSource | None) -> tuple[str, str]:
    """Hex digest of a picture, or else "" and why there is none."""
    if image is None:
        return "", "no picture: this metric compares the caption with it"
    try:
        return image.digest(), ""
    except ImageError as error:
        return "", str(error)


def _rows(names: Sequence[str], vectors: Tensor) -> dict[str, Vector]:
    return dict(zip(names, np.asarray(vectors, np.float32), strict=True))
