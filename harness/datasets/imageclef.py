"""ImageCLEFmedical Caption, 2023 to 2026: the development kit as delivered, or an evaluator's folders."""

from __future__ import annotations

from typing import Annotated

from harness.contracts import RUNTIME, NonNegative, Positive, RequestError, Split
from harness.datasets._folder import open_folder
from harness.datasets._paths import given_folder, known_split
from harness.datasets._sampling import Sampling, Strata
from harness.datasets._split import Check, Rules, split_of_folder
from harness.datasets._wording import Clean
from harness.store.files_cache import Memo


class ImageClef:
    """ImageCLEFmedical Caption of any year: caption and concept tables with pictures in folders or zips."""

    def __init__(
        self,
        name: str,
        root: Annotated[str | None, RUNTIME],
        ids: Annotated[str | None, RUNTIME],
        limit: Positive | None,
        stratify: Strata,
        seed: NonNegative,
        clean: Clean,
        check: Annotated[Check, RUNTIME],
        cache: Annotated[str | None, RUNTIME],
        recheck: Annotated[bool, RUNTIME],
    ) -> None:
        self.name, self.root = name, root
        self.rules = Rules(Sampling(limit, stratify, seed), clean, check, ids)
        self.memo = Memo(cache, anew=recheck) if cache else None

    def load(self, split: str) -> Split:
        """The split's rows in the file's order, or a sample of them; pictures stay where they are until loaded."""
        known_split(self.name, split)
        if not self.root:
            raise RequestError(
                "dataset.root: expected the folder of ImageCLEF's files, got none; add dataset.root=FOLDER"
            )
        return split_of_folder(open_folder(given_folder("dataset.root", self.root)), split, self.rules, self.memo)
