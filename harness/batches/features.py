"""Features that vision towers make of pictures, kept over epochs, runs and strategies: a frozen tower sees one once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch

from harness.batches.feature_files import FeatureFiles
from harness.contracts import Captioner, Example, Plan, Query, Refused, Sample, Seen, TowerCached
from harness.machine import ranks
from harness.machine.terminal import bar, errors
from harness.store import digest

Mode = Literal["auto", "on", "off"]
VERSION = 1  # of what is kept; raised when a family keeps something else
IDS = "ids"
LIBRARIES = ("torch", "transformers", "pillow", "pydicom", "numpy")


def allowed(captioner: Captioner, plan: Plan, mode: Mode) -> bool:
    """Whether features may stand for pictures. Raises Refused where that was asked for and cannot be."""
    if mode == "off":
        return False
    reason = _hindrance(captioner, plan)
    if reason and mode == "on":
        raise Refused(f"features=on for model={captioner.name} lora={plan.strategy}: refused, {reason}; use auto")
    return reason is None


def _hindrance(captioner: Captioner, plan: Plan) -> str | None:
    if not isinstance(captioner, TowerCached):
        return "this captioner has no vision tower that could be left out"
    touched = [name for name in (*plan.adapted, *plan.trained) if _in_tower(captioner, captioner.tower, name)]
    if touched:
        more = f" and {len(touched) - 1} more" if len(touched) > 1 else ""
        return (
            f"the strategy changes the vision tower ({touched[0]}{more}), so that a picture looks different each time"
        )
    return None


def _in_tower(captioner: Captioner, tower: str, name: str) -> bool:
    """Whether a module holds the tower or is a part of it; a connector may lie in the same module."""
    return name in ("", tower) or tower.startswith(f"{name}.") or captioner.region(name) == "vision"


class Features:
    """The rows of one captioner without its vision tower.

    about: all that features depend on besides the pictures' bytes. Prompt ids are kept by question, apart from the
    features, so that another question costs the processor and not the tower.
    """

    def __init__(self, captioner: TowerCached, files: FeatureFiles, about: Mapping[str, Any]) -> None:
        self.captioner, self.files = captioner, files
        self.about = digest([VERSION, dict(about)])
        self._keys: dict[tuple[int, str], tuple[Sample, str, str]] = {}

    def known(self, query: Query) -> Seen | None:
        """The row of a query, None when the picture or the question is new."""
        picture, question = self._of(query)
        ids = self.files.read(question)
        tensors = self.files.read(picture) if ids else None
        return Seen(ids[IDS].tolist(), tensors) if ids and tensors else None

    def encode(self, query: Query, example: Example) -> Example:
        """The example with its row; what is new is kept as far as there is room."""
        picture, question = self._of(query)
        processed, tensors = self.captioner.preprocess(example), self.files.read(picture)
        seen = Seen(processed.ids, tensors) if tensors else self.captioner.encode_images(processed)
        # the question last: where it is, all is
        if tensors or self.files.write(picture, seen.tensors):
            self.files.write(question, {IDS: torch.tensor(seen.ids, dtype=torch.int32)})
        return Example((), example.prompt, example.caption, seen)

    def examples(self, queries: Sequence[Query]) -> list[Example] | None:
        """Training examples without pictures, None where one of them is not known: then all need their pictures."""
        rows = [self.known(query) for query in queries]
        pairs = [(query, row) for query, row in zip(queries, rows, strict=True) if row is not None]
        if len(pairs) < len(queries):
            return None
        return [Example((), query.prompt, query.sample.caption, row) for query, row in pairs]

    def prepare(self, queries: Sequence[Query], name: str, load: Callable[[Query], Example]) -> None:
        """See all that is new, a share on each process: afterwards `examples` needs no model and no picture.

        load: query -> its example with pictures. What there is no room for is seen again in each epoch.
        """
        for query in queries:
            self._of(query)
        todo = ranks.once(lambda: [place for place, query in enumerate(queries) if not self._there(query)])
        todo = todo[ranks.rank() :: ranks.world()]
        with bar(f"pictures {name}", len(todo)) as advance:
            for place in todo:
                self.encode(queries[place], load(queries[place]))
                advance(1)
                if self.files.full:
                    errors.print(
                        f"{self.files.folder}: full; the rest is seen in each epoch (features_gb=N makes room)"
                    )
                    break
        ranks.gather(None)

    def _there(self, query: Query) -> bool:
        return all(map(self.files.has, self._of(query)))

    def _of(self, query: Query) -> tuple[str, str]:
        """The keys of its pictures and of its question."""
        sample = query.sample
        name = (id(sample), query.prompt)  # the sample is kept with its keys, so that no other one gets its id
        if name not in self._keys:  # hashed once, and in this process: data workers get the keys with all else
            picture = digest([self.about, [image.digest() for image in sample.images]])
            self._keys[name] = (sample, picture, digest([picture, query.prompt]))
        return self._keys[name][1:]
