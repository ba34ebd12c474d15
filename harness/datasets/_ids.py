"""A list of the rows to be used, as `capbench data check` writes it: csv with the columns split and id."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from harness.contracts import Rejected, RequestError, Sample

NAMED = 5  # ids in a message


def only(samples: Sequence[Sample], ids: str | None, split: str) -> tuple[list[Sample], list[Rejected]]:
    """The samples that the list has for this split, in their own order, and the others for the ledger.

    ids: the file, None for all samples. Raises RequestError for a file that is no such list or names unknown ids.
    """
    if ids is None:
        return list(samples), []
    wanted = listed(ids, split)
    unknown = sorted(wanted - {sample.id for sample in samples})
    if unknown:
        raise RequestError(
            f"dataset.ids={ids}: names {len(unknown)} ids that split {split!r} does not have, such as "
            f"{', '.join(unknown[:NAMED])}; write the list again with `capbench data check ... write_clean_list=FILE`"
        )
    kept = [sample for sample in samples if sample.id in wanted]
    return kept, [Rejected(s.id, f"not in dataset.ids={ids}") for s in samples if s.id not in wanted]


def listed(ids: str, split: str) -> set[str]:
    """The ids of one split. Raises RequestError."""
    try:
        text = Path(ids).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"dataset.ids={ids}: cannot be read ({error}); expected a csv file with split,id") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if not {"split", "id"} <= set(reader.fieldnames or ()):
        found = ", ".join(reader.fieldnames or ()) or "nothing"
        raise RequestError(f"dataset.ids={ids}: expected the columns split and id, found {found}")
    return {row["id"] for row in reader if row["split"] == split}
