"""ImageCLEFmedical Caption, 2023 to 2026: the development kit as delivered, or an evaluator's folders."""

from __future__ import annotations

from dataclasses import dataclass

from harness.contracts import RequestError, Split
from harness.datasets._folder import open_folder
from harness.datasets._paths import given_folder, known_split
from harness.datasets._reading import Reading
from harness.datasets._split import split_of_folder


@dataclass(eq=False)
class ImageClef(Reading):
    """ImageCLEFmedical Caption of any year: caption and concept tables with pictures in folders or zips."""

    def load(self, split: str) -> Split:
        """The split's rows in the file's order, or a sample of them; pictures stay where they are until loaded."""
        known_split(self.name, split)
        if not self.root:
            raise RequestError(
                "dataset.root: expected the folder of ImageCLEF's files, got none; add dataset.root=FOLDER"
            )
        return split_of_folder(open_folder(given_folder("dataset.root", self.root)), split, self)
