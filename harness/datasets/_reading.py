"""Reading of datasets of files: the keys that all of them have, and the choice among rows that these make.

Datasets in other files inherit these annotations and `harness.config` resolves them there: so they are no strings here.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from harness.contracts import RUNTIME, UNKNOWN, ImageError, NonNegative, Positive, Rejected, Sample
from harness.datasets._ids import only
from harness.datasets._sampling import Sampling, Strata
from harness.datasets._wording import Clean
from harness.imaging.files import StoredImage
from harness.store.files_cache import Memo

READERS = 2  # threads that decode pictures for the check; decoders leave the interpreter lock

Check = Literal["listed", "decoded"]
"""What is asked of a picture before it counts as usable: to be there, or to have been decoded once."""


@dataclass(eq=False)
class Reading:
    """Options of a dataset that is read from files; each adds its own as a dataclass (`eq=False`), too."""

    name: str
    root: Annotated[str | None, RUNTIME]
    ids: Annotated[str | None, RUNTIME]
    limit: Positive | None
    stratify: Strata
    seed: NonNegative
    clean: Clean
    check: Annotated[Check, RUNTIME]
    cache: Annotated[str | None, RUNTIME]
    recheck: Annotated[bool, RUNTIME]

    def __post_init__(self) -> None:
        """Make what reads and chooses; nothing is opened."""
        self.sampling = Sampling(self.limit, self.stratify, self.seed)
        self.memo = Memo(self.cache, anew=self.recheck) if self.cache else None

    def choose(self, samples: Sequence[Sample], split: str) -> tuple[list[Sample], list[Rejected]]:
        """The samples to be used, and those that the list of ids lacks or whose pictures are damaged. RequestError."""
        listed, unlisted = only(samples, self.ids, split)
        chosen = self.sampling.pick(listed)
        if self.check == "listed":
            return chosen, unlisted
        with ThreadPoolExecutor(READERS) as pool:
            checked = list(pool.map(_examined, chosen))
        damaged = [row for row in checked if isinstance(row, Rejected)]
        return [row for row in checked if isinstance(row, Sample)], unlisted + damaged


def _examined(sample: Sample) -> Sample | Rejected:
    """Its pictures can be decoded, or else the reason. DICOM files tell a modality that nothing else names."""
    try:
        found = [image.examine() for image in sample.images if isinstance(image, StoredImage)]
    except ImageError as error:
        return Rejected(sample.id, str(error))
    return replace(sample, modality=found[0]) if sample.modality == UNKNOWN and found else sample
