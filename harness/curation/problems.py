"""Problems of a dataset: kinds, severities, and what a ledger's reason is an example of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.contracts import SPLITS

Severity = Literal["error", "warning", "note"]

KINDS: dict[Severity, tuple[str, ...]] = {
    "error": (  # the row cannot be used, or makes a score wrong
        *("missing_image", "undecodable_image", "decompression_bomb", "image_outside_root"),
        *("empty_caption", "unwritable_caption", "duplicate_id", "unusable_row", "unusable_split"),
        "same_image_in_other_split",  # the model is tested on what it was trained on
    ),
    "warning": (  # usable, but not what one would wish
        *("similar_image_in_other_split", "duplicate_image", "tiny_image", "blank_image"),
        *("mojibake", "replacement_character", "control_character"),
        *("image_without_row", "concepts_without_row", "unread_split"),
    ),
    "note": (  # worth knowing; every real set has them
        *("similar_image", "unusual_mode", "duplicate_caption", "line_break", "glued_text", "unknown_modality"),
    ),
}
SEVERITY = {kind: severity for severity, kinds in KINDS.items() for kind in kinds}
"""The worst kinds come first."""

REASONS = (
    ("image_without_row", r"picture without a row"),
    ("concepts_without_row", r"concepts without a row"),
    ("duplicate_id", r"is already used in|is in split .* too|two pictures have this id"),
    ("empty_caption", r"caption is empty"),
    ("unwritable_caption", r"cannot be written as UTF-8"),
    ("decompression_bomb", r"pixels, more than|more than \d+ (bytes|pixels)|decompression bomb"),
    ("image_outside_root", r"lies outside"),
    ("missing_image", r"does not exist|no image|no picture|file cannot be read"),
    ("undecodable_image", r"cannot be decoded|not a picture|DICOM|damaged"),
)
"""(kind, pattern) over the reasons of ledgers and ImageErrors, the first match counts. An unlisted reason is an
`unusable_row`, an error like these: a new wording loses its heading in the table and nothing else."""


@dataclass(frozen=True)
class Problem:
    """One finding about one row; `id` is empty where it is about a whole split, `split` where about the whole set."""

    split: str
    id: str
    kind: str
    detail: str

    @property
    def severity(self) -> Severity:
        """How bad its kind is."""
        return SEVERITY[self.kind]


def kind_of(reason: str) -> str:
    """The kind of a rejection, by the words of its reason."""
    return next((kind for kind, words in REASONS if re.search(words, reason, re.IGNORECASE)), "unusable_row")


def kind_of_image(reason: str) -> str:
    """The kind of an ImageError, which is about the picture whatever its words."""
    kind = kind_of(reason)
    return kind if kind in ("decompression_bomb", "missing_image") else "undecodable_image"


def sort_problems(problems: Iterable[Problem]) -> list[Problem]:
    """Problems in the order of the file: by split, the worst first, then by kind, id and detail; each once."""
    kinds = list(SEVERITY)
    splits = ("", *SPLITS)
    return sorted(set(problems), key=lambda p: (splits.index(p.split), kinds.index(p.kind), p.id, p.detail))


def unusable(problems: Sequence[Problem]) -> set[tuple[str, str]]:
    """(split, id) of the rows with an error."""
    return {(p.split, p.id) for p in problems if p.severity == "error"}
