"""Base of AlignScore and BLEURT: a transformer reads two texts at once and gives one number."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from harness.contracts import Score
from harness.machine.bfloat16 import inference
from harness.metrics._text import TextMetric, Texts

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

Tokens = Sequence[int]
Cut = Callable[[int, int, int], tuple[int, int]]
"""Tokens of the first text, of the second, and of both that there is room for -> how many of each are kept."""


class Reading(NamedTuple):
    """The model's value of a pair, and how many of its sides (0, 1, 2) had to be cut."""

    value: float
    cut: int


class CrossEncoder(TextMetric, ABC):
    """A metric of a model that reads both texts at once. A pair that is no text, or gets no number, fails.

    `load` puts a tokenizer, a network and the number of tokens that it takes into the attributes declared here.
    """

    values = ("truncated", "score")
    _tokenizer: PreTrainedTokenizerBase
    _net: nn.Module
    _limit: int

    def __init__(
        self, name: str, checkpoint: str, dtype: Literal["float32", "bfloat16"], batch_size: int, embedded: str
    ) -> None:
        super().__init__(name)
        self.checkpoint, self.dtype, self.batch_size = checkpoint, dtype, batch_size
        self.source = embedded if checkpoint == "embedded" else checkpoint

    @abstractmethod
    def _readings(self, texts: list[Texts]) -> dict[Texts, Reading]:
        """One reading of each."""

    def _values(self, output: Any) -> Tensor:
        """The numbers (batch,) in what the network gives: all of it."""
        return output  # type: ignore[no-any-return]

    def _compute(self, texts: list[Texts]) -> list[Score]:
        failed = {text: reason for text in texts if (reason := unreadable(text))}
        found = self._readings([text for text in texts if text not in failed])
        return [Score({}, failed[text]) if text in failed else _scored(found[text]) for text in texts]

    def _read(self, pairs: Iterable[Texts], cut: Cut) -> dict[Texts, Reading]:
        """Read every distinct pair once, the longest first: neighbours of like length need little padding.

        Beside the texts, memory holds their token ids, each text's once, and one batch.
        """
        distinct = list(dict.fromkeys(pairs))
        ids = _tokens({side for pair in distinct for side in pair}, self._tokenizer)
        room = self._limit - self._tokenizer.num_special_tokens_to_add(pair=True)
        kept = {pair: _keep(len(ids[pair[0]]), len(ids[pair[1]]), room, cut) for pair in distinct}
        distinct.sort(key=lambda pair: (-sum(kept[pair]), pair))
        found = {}
        for start in range(0, len(distinct), self.batch_size):
            batch = distinct[start : start + self.batch_size]
            rows = [[ids[side][:size] for side, size in zip(pair, kept[pair], strict=True)] for pair in batch]
            for pair, value in zip(batch, self._forward(_pad(rows, self._tokenizer)).tolist(), strict=True):
                cuts = sum(size < len(ids[side]) for side, size in zip(pair, kept[pair], strict=True))
                found[pair] = Reading(value, cuts)
        return found

    def _forward(self, inputs: dict[str, Tensor]) -> Tensor:
        weight = next(self._net.parameters())
        with inference(weight.dtype, weight.device):
            output = self._net(**{name: part.to(weight.device) for name, part in inputs.items()})
        return self._values(output).float().cpu()


def _scored(reading: Reading) -> Score:
    if not math.isfinite(reading.value):
        return Score({}, f"the model gave {reading.value}")
    return Score({"truncated": float(reading.cut), "score": reading.value})


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
