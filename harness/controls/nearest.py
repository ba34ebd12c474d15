"""Nearest control: the caption of the most similar training picture."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from harness.contracts import RUNTIME, CapBenchError, ControlCaption, ImageSource, Sample
from harness.encoders.pair_files import EMBEDDED, Kind
from harness.encoders.pairs import Dtype, PairCheckpoint, PairVectors, content_of

KNOWN, ASKED = 8192, 1024  # rows of both sides multiplied at once: 32 MB of cosines

Matrix = NDArray[np.float32]


class Nearest:
    """Copies the caption of the training picture with the highest cosine under a frozen encoder; of equals the first.

    What a captioner gains over it is what it does beyond finding a similar picture. A sample's first picture counts.
    Training pictures that cannot be read are left out and counted; training pictures of the same bytes count as one.
    A test picture that is a training picture, byte for byte, gets its caption: a leak, marked `duplicate` in its row.
    """

    replaces_captioner = True

    def __init__(
        self,
        name: str,
        weights: str,
        encoder: Kind,
        hub: Annotated[str, RUNTIME],  # its content is hashed
        dtype: Dtype,
        batch_size: Annotated[int, RUNTIME],
    ) -> None:
        self.name, self.batch_size = name, batch_size
        kind: Kind = "medimageinsight" if weights == EMBEDDED else encoder
        self.checkpoint = PairCheckpoint(f"control {name}", kind, EMBEDDED if weights == EMBEDDED else hub, dtype)

    def digest(self) -> str:
        """Hex sha256 of the encoder's files. Raises RequestError when they cannot be found."""
        return self.checkpoint.content

    def learn(self, train: Sequence[Sample], device: str, features: MutableMapping[str, bytes]) -> Mapping[str, Any]:
        """Look at every training picture. Raises CapBenchError when none can be used."""
        self._vectors = PairVectors(self.checkpoint, device, features, self.batch_size)
        names = [content_of(_picture(sample))[0] for sample in train]
        first: dict[str, Sample] = {}
        for name, sample in zip(names, train, strict=True):
            if name:
                first.setdefault(name, sample)
        found, _ = self._vectors.pictures({name: sample.images[0] for name, sample in first.items()})
        self._known = {name: sample for name, sample in first.items() if name in found}
        self._samples = list(self._known.values())
        if not found:
            raise CapBenchError(f"control {self.name}: none of {len(train)} training pictures can be read")
        self._matrix: Matrix = np.stack([found[name] for name in self._known])
        if not np.isfinite(self._matrix).all():
            raise CapBenchError(f"control {self.name}: the encoder's vectors are not finite; use dtype=float32")
        unreadable = sum(name not in found for name in names)
        return {"encoder": self.checkpoint.signature, "pictures": len(found), "unreadable": unreadable}

    def caption(self, samples: Sequence[Sample]) -> list[ControlCaption]:
        """The caption of each sample's neighbour; none, with the reason, where its picture cannot be read."""
        contents = [content_of(_picture(sample)) for sample in samples]
        new = {
            name: sample.images[0]
            for sample, (name, _) in zip(samples, contents, strict=True)
            if name and name not in self._known
        }
        vectors, problems = self._vectors.pictures(new)
        places, cosines = most_similar(self._matrix, np.array(list(vectors.values())))
        found = dict(zip(vectors, zip(places.tolist(), cosines.tolist(), strict=True), strict=True))
        return [self._said(name, reason or problems.get(name, ""), found) for name, reason in contents]

    def _said(self, name: str, problem: str, found: Mapping[str, tuple[int, float]]) -> ControlCaption:
        if problem:
            return ControlCaption(None, problem)
        if name in self._known:
            twin = self._known[name]
            return ControlCaption(twin.caption, facts={"neighbour": twin.id, "cosine": 1.0, "duplicate": True})
        place, cosine = found[name]
        if not np.isfinite(cosine):
            return ControlCaption(None, "the encoder's vector is not finite; use control.dtype=float32")
        facts = {"neighbour": self._samples[place].id, "cosine": round(cosine, 6), "duplicate": False}
        return ControlCaption(self._samples[place].caption, facts=facts)


def most_similar(known: Matrix, asked: Matrix) -> tuple[NDArray[np.int64], Matrix]:
    """For each row of `asked` [m, width] the place of the row of `known` [n, width] with the highest product; [m] both.

    Of equals the first. A part of either side at a time: 17,000 x 80,000 need no more memory than the vectors do.
    """
    places, best = np.zeros(len(asked), np.int64), np.full(len(asked), -np.inf, np.float32)
    for top in range(0, len(asked), ASKED):
        rows = slice(top, top + ASKED)
        for start in range(0, len(known), KNOWN):
            cosines = asked[rows] @ known[start : start + KNOWN].T
            found = cosines.argmax(axis=1)
            values = cosines[np.arange(len(found)), found]
            better = values > best[rows]
            places[rows] = np.where(better, found + start, places[rows])
            best[rows] = np.where(better, values, best[rows])
    return places, best


def _picture(sample: Sample) -> ImageSource | None:
    return sample.images[0] if sample.images else None
