"""What AlignScore and BLEURT share: a transformer that reads two texts at once and gives one number."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.metrics._text import Texts

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Tokens = Sequence[int]
Cut = Callable[[int, int, int], tuple[int, int]]
"""Tokens of the first text, of the second, and of both that there is room for -> how many of each are kept."""


class Reading(NamedTuple):
    """What the model makes of a pair, and how many of its sides (0, 1, 2) had to be cut."""

    value: float
    cut: int


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """As transformers' `truncation=True`: token by token off the longer side, off the second of two equal ones."""
    kept = min(first, max(room - second, (room + 1) // 2))
    return kept, min(second, room - kept)


def unreadable(texts: Texts) -> str | None:
    """Why no tokenizer takes a pair: half of a UTF-16 surrogate pair, which JSON can hold and UTF-8 cannot."""
    for side, text in zip(("reference", "candidate"), texts, strict=True):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return f"{side}: character {error.start} is half of a surrogate pair, which is no text"
    return None


def read_pairs(
    pairs: Iterable[Texts],
    tokenizer: PreTrainedTokenizerBase,
    forward: Callable[[dict[str, Tensor]], Tensor],
    limit: int,
    cut: Cut,
    batch_size: int,
) -> dict[Texts, Reading]:
    """Read every distinct pair once, the longest first: neighbours of like length need little padding.

    `limit`: tokens that the model takes, special ones included. Beside the texts, memory holds their token ids, each
    text's once, and one batch.
    """
    distinct = list(dict.fromkeys(pairs))
    ids = _tokens({side for pair in distinct for side in pair}, tokenizer)
    room = limit - tokenizer.num_special_tokens_to_add(pair=True)
    kept = {pair: _keep(len(ids[pair[0]]), len(ids[pair[1]]), room, cut) for pair in distinct}
    distinct.sort(key=lambda pair: (-sum(kept[pair]), pair))
    found = {}
    for start in range(0, len(distinct), batch_size):
        batch = distinct[start : start + batch_size]
        rows = [[ids[side][:size] for side, size in zip(pair, kept[pair], strict=True)] for pair in batch]
        for pair, value in zip(batch, forward(_pad(rows, tokenizer)).tolist(), strict=True):
            cuts = sum(size < len(ids[side]) for side, size in zip(pair, kept[pair], strict=True))
            found[pair] = Reading(value, cuts)
    return found


def _tokens(texts: set[str], tokenizer: PreTrainedTokenizerBase) -> dict[str, array[int]]:
    """Token ids per text, without special ones. One by one: a slow tokenizer knows no batches, a fast one no hurry."""
    return {text: array("i", tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) for text in texts}


def _keep(first: int, second: int, room: int, cut: Cut) -> tuple[int, int]:
    return (first, second) if first + second <= room else cut(first, second, room)


def _pad(rows: Sequence[Sequence[array[int]]], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """A right-padded batch. Not `tokenizer.pad`, which advises on stderr against itself."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ids, types = [], []
    for row in rows:
        first, second = (list(side) for side in row)
        ids.append(torch.tensor(tokenizer.build_inputs_with_special_tokens(first, second)))
        types.append(torch.tensor(tokenizer.create_token_type_ids_from_sequences(first, second)))
    inputs = {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=tokenizer.pad_token_id),
        # Not from the ids: a text may hold the padding token.
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
    }
    if "token_type_ids" in tokenizer.model_input_names:
        inputs["token_type_ids"] = pad_sequence(types, batch_first=True)
    return inputs
