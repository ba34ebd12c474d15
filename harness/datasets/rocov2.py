"""ROCOv2 (doi 10.1038/s41597-024-03496-6): radiology figures of open-access articles with captions and UMLS concepts.

Forms: Zenodo's files (doi 10.5281/zenodo.10821435), pictures unpacked or still zipped; Hugging Face's Parquet files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

from harness.contracts import RUNTIME, RequestError, Split
from harness.datasets._folder import open_folder
from harness.datasets._paths import given_folder, known_split
from harness.datasets._reading import Reading
from harness.datasets._split import split_of_folder
from harness.machine.pillow import reason


@dataclass(eq=False)
class RocoV2(Reading):
    """ROCOv2 as downloaded: Zenodo's csv files and pictures (folders or zips), or Hugging Face's Parquet files."""

    hub: Annotated[str | None, RUNTIME]

    def load(self, split: str) -> Split:
        """The split's rows in the file's order, or a sample of them; pictures stay where they are until loaded."""
        known_split(self.name, split)
        return split_of_folder(open_folder(self._folder()), split, self)

    def _folder(self) -> Path:
        if self.root:
            return given_folder("dataset.root", self.root)
        if self.hub:
            return _fetched(self.hub)
        raise RequestError(
            "dataset.root: expected the folder of ROCOv2's files, got none; add dataset.root=FOLDER, "
            "or dataset.hub=eltorio/ROCOv2-radiology to fetch 18.6 GB"
        )


def _fetched(hub: str) -> Path:
    """The Parquet files of a hub id, fetched once into Hugging Face's own cache. Raises RequestError."""
    try:
        return Path(snapshot_download(hub, repo_type="dataset", allow_patterns=["*.parquet"])).resolve()
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise RequestError(
            f"dataset.hub={hub}: cannot be fetched ({reason(error)}); fetch it where there is a network "
            f"(hf download {hub} --repo-type dataset --local-dir FOLDER) and add dataset.root=FOLDER"
        ) from error
