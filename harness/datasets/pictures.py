"""The pictures of a folder by id, for caption files that come without a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.contracts import ImageSource, RequestError
from harness.datasets._folder import PICTURES
from harness.imaging.files import FileImage


class Pictures:
    """Files named <id>.jpg, <id>.png, ... directly in one folder; no id can lead out of it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def load(self) -> Mapping[str, ImageSource]:
        """The picture of each id. Raises RequestError when there is no folder or two pictures have one id."""
        folder = Path(self.folder).expanduser()
        if not folder.is_dir():
            raise RequestError(f"images={self.folder}: expected a folder with <id>.jpg or <id>.png, found none")
        found: dict[str, ImageSource] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in PICTURES:
                if path.stem in found:
                    raise RequestError(f"images={self.folder}: two pictures have the id {path.stem}; keep one of them")
                found[path.stem] = FileImage(path)
        return found
