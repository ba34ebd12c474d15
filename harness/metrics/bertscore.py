"""BERTScore (Zhang et al. 2020, arXiv 1904.09675): greedy matching of contextual token vectors."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from harness.contracts import RUNTIME, Pair, RequestError, Score
from harness.encoders.checkpoint import digest, how_to_get, locate, missing_package, quiet
from harness.machine.bfloat16 import inference
from harness.metrics._text import Preprocess, Texts, preprocess, ruling, score_distinct

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

VERSION = 2  # raise it with any change of this file that changes a value
MAX_TOKENS = 512  # of a text, special tokens included; some tokenizers declare no limit and would cut nothing
HELD = 100_000  # token vectors held at once: 0.4 GB for an encoder of width 1024
OUTSIDE = -2.0  # below every cosine: padding never wins a match


class Side(NamedTuple):
    """One text: token ids with the special ones, and whether it was cut."""

    ids: list[int]
    cut: bool


@dataclass(eq=False)
class BertScore:
    """The bert-score library's values for a BERT, RoBERTa or DeBERTa checkpoint, without baseline rescaling.

    `truncated` counts the sides (0, 1, 2) that were cut at 512 tokens. With idf "references" a value depends on all
    references of the split: whoever stores one keys it by their hash too.

    The library masks a padded batch with 0. Where a token's best cosine is negative, the padding wins there, so that a
    value depends on the batch. Here a pair scores the same in any company, up to rounding: what the library gives for
    one pair per call, as the ImageCLEF evaluators use it. Its loop over pairs is replaced by batches over texts, each
    distinct text embedded once.
    """

    name: str
    checkpoint: Annotated[str, RUNTIME]  # its content is hashed
    layer: int
    idf: Literal["none", "references"]
    preprocess: Preprocess
    dtype: Literal["float32", "bfloat16"]
    batch_size: Annotated[int, RUNTIME]
    _corpus: tuple[Sequence[str], dict[int, float]] | None = field(default=None, init=False)

    values = ("truncated", "precision", "recall", "f1")
    higher_is_better = True

    @property
    def needs(self) -> frozenset[str]:
        """With idf a value depends on all references."""
        return frozenset({"reference", "corpus"} if self.idf == "references" else {"reference"})

    def missing(self) -> str | None:
        """Missing part and the command that helps; None when all is there. Reads no weight."""
        package = missing_package("bert_score", "bert-score")
        return package or (None if locate(self.checkpoint) else how_to_get(self.checkpoint))

    def signature(self) -> str:
        """Name, version and options: what a value depends on besides its texts and, with idf, the references."""
        libraries = f"lib={version('bert-score')}|transformers={version('transformers')}"
        options = f"layer={self.layer}|idf={self.idf}|preprocess={self.preprocess}"
        limits = f"max_tokens={MAX_TOKENS}|dtype={self.dtype}"
        return f"{self.name}|v={VERSION}|{libraries}|ckpt={self._digest}|{options}|{limits}"

    def load(self, device: str, features: MutableMapping[str, bytes]) -> None:
        """Read tokenizer and encoder, and keep the encoder's first `layer` layers."""
        with quiet():
            import torch
            from bert_score.utils import get_tokenizer
            from transformers import AutoModel

            folder = str(self._folder)
            # The slow tokenizer is the library's default; a fast one changes some models' scores.
            self._tokenizer: PreTrainedTokenizerBase = get_tokenizer(folder, use_fast=False)
            # Not the library's get_model: it takes any path that has "t5" somewhere in it for a T5.
            model = AutoModel.from_pretrained(folder, dtype=getattr(torch, self.dtype))
        self._tokenizer.model_max_length = min(self._tokenizer.model_max_length, MAX_TOKENS)
        self._model: nn.Module = self._shorten(model).to(device).eval()

    def score(self, pairs: Sequence[Pair], references: Sequence[str]) -> list[Score]:
        """One score per pair. A pair with a side whose tokens all have idf 0 fails: its mean is 0/0."""
        weights = self._weights(references)
        return score_distinct(pairs, lambda texts: self._compute(texts, weights))

    def _compute(self, texts: list[Texts], weights: dict[int, float]) -> list[Score]:
        scores = {text: _score([value] * 3, 0) for text in texts if (value := ruling(*text)) is not None}
        open_ = [text for text in texts if text not in scores]
        sides = {side: self._side(side) for side in dict.fromkeys(side for text in open_ for side in text)}
        blank = len(self._tokenizer.build_inputs_with_special_tokens([]))
        # A side of which the preprocessing leaves no token scores 0, as in the library.
        matched = [text for text in open_ if all(len(sides[side].ids) > blank for side in text)]
        found: dict[Texts, list[float]] = {}
        for group in _groups(matched, sides):
            found |= self._match(group, sides, weights)
        for text in open_:
            scores[text] = _score(found.get(text, [0.0] * 3), sum(sides[side].cut for side in text))
        return [scores[text] for text in texts]

    @cached_property
    def _folder(self) -> Path:
        folder = locate(self.checkpoint)
        if folder is None:
            raise RequestError(f"metric {self.name}: {how_to_get(self.checkpoint)}")
        return folder

    @cached_property
    def _digest(self) -> str:
        return digest(self._folder)[:12]

    def _shorten(self, model: nn.Module) -> nn.Module:
        encoder = getattr(model, "encoder", None)
        layers = getattr(encoder, "layer", None)
        if encoder is None or layers is None:
            raise RequestError(
                f"metric {self.name}: expected a BERT, RoBERTa or DeBERTa encoder in {self.checkpoint!r}, "
                f"got {type(model).__name__}"
            )
        if not 1 <= self.layer <= len(layers):
            raise RequestError(f"metric {self.name}.layer: expected 1 to {len(layers)}, got {self.layer}")
        encoder.layer = layers[: self.layer]
        return model

    def _weights(self, references: Sequence[str]) -> dict[int, float]:
        """Weight per token id: 1, or log((N+1)/(df+1)) over the references. The special tokens get 0 either way."""
        from bert_score.utils import get_idf_dict

        if self.idf == "none":
            specials = self._tokenizer.build_inputs_with_special_tokens([])
            return defaultdict(lambda: 1.0, dict.fromkeys(specials, 0.0))
        if self._corpus is None or self._corpus[0] is not references:  # the same list for all parts of a split
            texts = [preprocess(text, self.preprocess) for text in references]
            # No process pool: forking after a model is loaded is slow and unsafe.
            self._corpus = (references, get_idf_dict(texts, self._tokenizer, nthreads=0))
        return self._corpus[1]

    def _side(self, text: str) -> Side:
        """The library's own tokenisation; a text as long as the limit is read again to know whether it was cut."""
        from bert_score.utils import sent_encode

        clean = preprocess(text, self.preprocess)
        ids = sent_encode(self._tokenizer, clean)
        full = len(ids) == self._tokenizer.model_max_length
        room = self._tokenizer.model_max_length - self._tokenizer.num_special_tokens_to_add()
        return Side(ids, full and len(self._tokenizer.tokenize(clean.strip())) > room)

    def _match(
        self, texts: Sequence[Texts], sides: dict[str, Side], weights: dict[int, float]
    ) -> dict[Texts, list[float]]:
        """Precision, recall and f1 of each pair."""
        import torch

        vectors = self._embed(dict.fromkeys(side for text in texts for side in text), sides)
        idf = {
            side: torch.tensor([weights[i] for i in sides[side].ids], device=vectors[side].device) for side in vectors
        }
        order = sorted(texts, key=lambda text: (*(len(sides[side].ids) for side in text), text))
        found: dict[Texts, list[float]] = {}
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            reference, candidate = ([text[place] for text in batch] for place in (0, 1))
            rates = _rates(*(_stacked(part, vectors, idf) for part in (reference, candidate)))
            found |= dict(zip(batch, rates.tolist(), strict=True))
        return found

    def _embed(self, texts: dict[str, None], sides: dict[str, Side]) -> dict[str, Tensor]:
        """Unit vectors [tokens, width] in float32; neighbours of like length need little padding."""
        import torch
        from torch.nn.functional import normalize

        weight = next(self._model.parameters())
        order = sorted(texts, key=lambda text: (len(sides[text].ids), text))
        pad = self._tokenizer.pad_token_id or 0
        result: dict[str, Tensor] = {}
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            lengths = [len(sides[text].ids) for text in batch]
            padded = [sides[text].ids + [pad] * (lengths[-1] - len(sides[text].ids)) for text in batch]
            mask = torch.arange(lengths[-1]) < torch.tensor(lengths)[:, None]
            ids, attention_mask = torch.tensor(padded, device=weight.device), mask.long().to(weight.device)
            with inference(weight.dtype, weight.device):
                output = self._model(ids, attention_mask=attention_mask)[0]
            unit = normalize(output.float(), dim=-1)
            result |= {text: row[:length].clone() for text, row, length in zip(batch, unit, lengths, strict=True)}
        return result


def _groups(texts: Sequence[Texts], sides: dict[str, Side]) -> Iterator[list[Texts]]:
    """Consecutive pairs whose distinct sides have at most HELD tokens together."""
    group: list[Texts] = []
    held: dict[str, int] = {}
    for text in texts:
        new = {side: len(sides[side].ids) for side in text if side not in held}
        if group and sum(held.values()) + sum(new.values()) > HELD:
            yield group
            group, held, new = [], {}, {side: len(sides[side].ids) for side in text}
        group.append(text)
        held |= new
    if group:
        yield group


def _stacked(texts: Sequence[str], vectors: dict[str, Tensor], idf: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors [pairs, tokens, width], weights [pairs, tokens] and mask [pairs, tokens], padded on the right."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    stacked = pad_sequence([vectors[text] for text in texts], batch_first=True)
    weights = pad_sequence([idf[text] for text in texts], batch_first=True)
    lengths = torch.tensor([len(idf[text]) for text in texts], device=stacked.device)
    return stacked, weights, torch.arange(stacked.shape[1], device=stacked.device) < lengths[:, None]


def _rates(reference: tuple[Tensor, Tensor, Tensor], candidate: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """[pairs, 3]: precision over candidate tokens, recall over reference tokens, their harmonic mean (0 for 0/0)."""
    import torch

    (r, r_idf, r_mask), (c, c_idf, c_mask) = reference, candidate
    cosines = torch.bmm(c, r.transpose(1, 2))
    cosines.masked_fill_(~(c_mask[:, :, None] & r_mask[:, None, :]), OUTSIDE)
    precision = (cosines.amax(dim=2) * c_idf).sum(dim=1) / c_idf.sum(dim=1)
    recall = (cosines.amax(dim=1) * r_idf).sum(dim=1) / r_idf.sum(dim=1)
    f1 = 2 * precision * recall / (precision + recall)
    return torch.stack([precision, recall, f1.masked_fill(f1.isnan(), 0.0)], dim=1)


def _score(rates: list[float], truncated: int) -> Score:
    """`rates`: precision, recall, f1, of which the library repairs a 0/0 in the last one only."""
    if any(map(math.isnan, rates)):
        return Score({}, "the idf weights of a text add up to 0: every reference has each of its tokens")
    return Score(dict(zip(BertScore.values, [float(truncated), *rates], strict=True)))
