"""Splits from rows: the unusable ones go to the ledger, of the others some are chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.contracts import SPLITS, UNKNOWN, Rejected, RequestError, Sample, Split
from harness.datasets._challenge import NO_LINE, ChallengeRow, ids_of, rows_of
from harness.datasets._folder import Folder
from harness.datasets._reading import Reading
from harness.datasets._table_cells import CellError, caption_text, concept_ids
from harness.datasets._wording import Clean
from harness.imaging.modalities import modality_of_concepts


def split_of_folder(folder: Folder, split: str, reading: Reading) -> Split:
    """One split. An id that is in several splits stays in the last of train, valid, test, so that no test row leaks."""
    place = SPLITS.index(split)
    elsewhere = ids_of(folder, reversed(SPLITS[place + 1 :]))
    samples, rejected, rowless = _judge(rows_of(folder, split, reading.memo), split, reading.clean, elsewhere)
    if rowless:  # one folder may hold the pictures of all splits
        elsewhere |= ids_of(folder, SPLITS[:place])
        rejected += [Rejected(row.id, row.fault) for row in rowless if row.id not in elsewhere]
    if not samples:
        why = f"; {len(rejected)} rejected, the first: {rejected[0].id}: {rejected[0].reason}" if rejected else ""
        raise RequestError(f"dataset.root={folder.root}: no usable row in split {split!r}{why}{folder.hint()}")
    chosen, others = reading.choose(samples, split)
    return Split(split, tuple(chosen), (*rejected, *others))


def _judge(
    rows: Iterable[ChallengeRow], split: str, clean: Clean, elsewhere: Mapping[str, str]
) -> tuple[list[Sample], list[Rejected], list[ChallengeRow]]:
    """Samples, the ledger, and what has no row at all."""
    samples: list[Sample] = []
    rejected: list[Rejected] = []
    rowless: list[ChallengeRow] = []
    first: dict[str, int] = {}
    for row in rows:
        if row.line == NO_LINE:
            rowless.append(row)
            continue
        fault = row.fault
        if not fault and first.setdefault(row.id, row.line) != row.line:
            fault = f"id {row.id!r} is already used in line {first[row.id]}"
        elif not fault and row.id in elsewhere:
            fault = f"id {row.id!r} is in split {elsewhere[row.id]!r} too and stays there"
        try:
            if not fault:
                samples.append(_sample(row, split, clean))
        except CellError as error:
            fault = str(error)
        if fault:
            rejected.append(Rejected(row.id, f"line {row.line}: {fault}"))
    return samples, rejected, rowless


def _sample(row: ChallengeRow, split: str, clean: Clean) -> Sample:
    """Raises CellError."""
    assert row.image is not None
    manual = concept_ids(row.manual)
    automatic = concept_ids(row.automatic)
    known = row.manual is not None or row.automatic is not None
    caption = caption_text(row.caption, clean)
    return Sample(
        id=row.id,
        images=(row.image,),
        caption=caption,
        split=split,
        modality=modality_of_concepts(manual, automatic) if known else UNKNOWN,
        concepts=automatic or manual,
        factors=with_raw(row.factors, row.caption, caption),
    )


def with_raw(factors: Mapping[str, str], raw: str, caption: str) -> Mapping[str, str]:
    """What is known of a sample, and its caption as it was where cleaning changed it."""
    return {**factors, "raw_caption": raw} if raw != caption else factors
