"""Pair vectors: pictures and texts in one space of a CLIP-like model, of length 1, each content encoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.contracts import ImageError, ImageSource, RequestError
from harness.encoders.checkpoint import missing_package
from harness.encoders.pair_files import Kind, digest, locate, missing

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

VERSION = 1  # raise it with any change of this file, medimageinsight*.py or clip_models.py that changes a value
CPU_PICTURES = 2  # at once: of 480 pixels by eight, a picture takes 15 % longer there
Vector = NDArray[np.float32]
Dtype = Literal["float32", "bfloat16"]


class Encoder(Protocol):
    """Pictures and texts to vectors of length 1 in one space."""

    def images(self, pictures: Sequence[Image.Image]) -> Tensor:
        """(N, width), float32 on the CPU."""

    def texts(self, texts: Sequence[str]) -> Tensor:
        """(N, width), float32 on the CPU."""

    def cut(self, text: str) -> bool:
        """Whether the text is longer than the encoder reads."""


@dataclass(frozen=True)
class PairCheckpoint:
    """A checkpoint of such a model, by its place; nothing is read before `open`. `owner` names it in errors."""

    owner: str
    kind: Kind
    checkpoint: str
    dtype: Dtype

    def missing(self) -> str | None:
        """Why it cannot be used here and the command that helps; reads no weight."""
        return missing(self.kind, self.checkpoint)

    @cached_property
    def folder(self) -> Path:
        """Where its files lie. Raises RequestError."""
        folder, problem = locate(self.kind, self.checkpoint), self.missing()
        if folder is None or problem:
            raise RequestError(f"{self.owner}: {problem}")
        return folder

    @cached_property
    def content(self) -> str:
        """Hex sha256 of what a vector can depend on. Raises RequestError."""
        return digest(self.kind, self.folder)

    @cached_property
    def signature(self) -> str:
        """What a vector depends on besides the picture or the text, in one line."""
        libraries = f"transformers={version('transformers')}"
        if self.kind == "medimageinsight":  # CLIP's tokenizer cleans texts with ftfy where it is installed
            libraries += f"|ftfy={'none' if missing_package('ftfy', 'ftfy') else version('ftfy')}"
        if self.kind == "open_clip":
            libraries += f"|open_clip={version('open_clip_torch')}"
        return f"encoder={self.kind}|{libraries}|ckpt={self.content[:12]}|dtype={self.dtype}"

    def key(self, what: Literal["text", "picture"], content: str) -> str:
        """The name of a vector among what is kept: all that share the encoder share it."""
        return hashlib.sha256(f"similarity|v={VERSION}|{self.signature}|{what}|{content}".encode()).hexdigest()

    def open(self, device: str) -> Encoder:
        """Read it. Raises RequestError."""
        import torch

        dtype = getattr(torch, self.dtype)
        if self.kind == "medimageinsight":
            from harness.encoders.medimageinsight import MedImageInsight

            return MedImageInsight(self.folder, device, dtype)
        from harness.encoders.clip_models import OpenClipPair, TransformersPair

        return (TransformersPair if self.kind == "transformers" else OpenClipPair)(self.folder, device, dtype)


class PairVectors:
    """Vectors by content. They are kept as float32 in `features`, which outlives the command."""

    def __init__(
        self, source: PairCheckpoint, device: str, features: MutableMapping[str, bytes], batch_size: int
    ) -> None:
        self.source, self.features = source, features
        self.encoder = source.open(device)
        self.batch_size = batch_size
        self.pictures_at_once = min(batch_size, CPU_PICTURES) if device == "cpu" else batch_size

    def texts(self, texts: Sequence[str]) -> dict[str, Vector]:
        """Text -> its vector."""
        # Neighbours of like length need little padding.
        ordered = sorted(set(texts), key=lambda text: (len(text), text))
        return self._kept("text", ordered, self.batch_size, lambda batch: _rows(batch, self.encoder.texts(batch)))

    def pictures(self, sources: Mapping[str, ImageSource]) -> tuple[dict[str, Vector], dict[str, str]]:
        """Vectors by the hex digests of the pictures, and why there is none where one cannot be read."""
        problems: dict[str, str] = {}
        found = self._kept(
            "picture", list(sources), self.pictures_at_once, lambda names: self._look(names, sources, problems)
        )
        return found, problems

    def _kept(
        self,
        what: Literal["text", "picture"],
        contents: Sequence[str],
        at_once: int,
        encode: Callable[[Sequence[str]], dict[str, Vector]],
    ) -> dict[str, Vector]:
        """The vector of each content; `encode` sees what is not kept yet, a batch at a time."""
        keys = {content: self.source.key(what, content) for content in contents}
        kept = {content: self.features.get(key) for content, key in keys.items()}
        found = {content: np.frombuffer(raw, np.float32) for content, raw in kept.items() if raw is not None}
        todo = [content for content in contents if content not in found]
        for start in range(0, len(todo), at_once):
            new = encode(todo[start : start + at_once])
            found |= new
            for content, vector in new.items():
                self.features[keys[content]] = vector.tobytes()
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
        return _rows(list(loaded), self.encoder.images(list(loaded.values()))) if loaded else {}


def content_of(image: ImageSource | None) -> tuple[str, str]:
    """Hex digest of a picture, or else "" and why there is none."""
    if image is None:
        return "", "no picture: the caption is compared with it"
    try:
        return image.digest(), ""
    except ImageError as error:
        return "", str(error)


def _rows(names: Sequence[str], vectors: Tensor) -> dict[str, Vector]:
    return dict(zip(names, np.asarray(vectors, np.float32), strict=True))
