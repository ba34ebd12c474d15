"""BERTScore (Zhang et al. 2020, arXiv 1904.09675): greedy matching of contextual token vectors."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import MutableMapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from harness.contracts import RUNTIME, Pair, RequestError, Score
from harness.metrics._checkpoint import digest, how_to_get, locate, quiet
from harness.metrics._packages import missing_package, version
from harness.metrics._text import Preprocess, Texts, preprocess, ruling, score_distinct

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

VERSION = 1  # raise it with any change of this file that changes a value
MAX_TOKENS = 512  # of a text, special tokens included; some tokenizers declare no limit and would cut nothing
CHUNK = 16  # batches of pairs whose vectors are held in memory at once


class BertScore:
    """The bert-score library's values for a BERT, RoBERTa or DeBERTa checkpoint, without baseline rescaling.

    `truncated` counts the sides (0, 1, 2) that were cut at 512 tokens. With idf "references" a value depends on all
    references of the split: whoever stores one keys it by their hash too. A pair scores the same in any company, up to
    the rounding of float32 (about 1e-6).
    """

    values = ("truncated", "precision", "recall", "f1")
    needs = frozenset({"reference"})
    higher_is_better = True

    def __init__(
        self,
        name: str,
        checkpoint: Annotated[str, RUNTIME],  # its content is hashed
        layer: int,
        idf: Literal["none", "references"],
        preprocess: Preprocess,
        batch_size: Annotated[int, RUNTIME],
    ) -> None:
        self.name, self.checkpoint, self.layer, self.idf = name, checkpoint, layer, idf
        self.preprocess, self.batch_size = preprocess, batch_size

    def missing(self) -> str | None:
        """Why the metric cannot run here and the command that helps; reads no weight."""
        package = missing_package("bert_score", "bert-score")
        return package or (None if locate(self.checkpoint) else how_to_get(self.checkpoint))

    def signature(self) -> str:
        """What a value depends on besides its texts (and, with idf=references, besides the references)."""
        libraries = f"lib={version('bert-score')}|transformers={version('transformers')}"
        options = f"layer={self.layer}|idf={self.idf}|preprocess={self.preprocess}|max_tokens={MAX_TOKENS}"
        return f"{self.name}|v={VERSION}|{libraries}|ckpt={self._digest}|{options}"

    def load(self, device: str, features: MutableMapping[str, bytes]) -> None:
        """Read tokenizer and encoder, and keep the encoder's first `layer` layers."""
        with quiet():
            from bert_score.utils import get_tokenizer
            from transformers import AutoModel

            folder = str(self._folder)
            # The slow tokenizer is the library's default; a fast one changes some models' scores.
            self._tokenizer: PreTrainedTokenizerBase = get_tokenizer(folder, use_fast=False)
            # Not the library's get_model: it takes any path that has "t5" somewhere in it for a T5.
            model = AutoModel.from_pretrained(folder)
        self._tokenizer.model_max_length = min(self._tokenizer.model_max_length, MAX_TOKENS)
        self._model: nn.Module = self._shorten(model).to(device).eval()

    def score(self, pairs: Sequence[Pair], references: Sequence[str]) -> list[Score]:
        """One score per pair. A pair with a side whose tokens all have idf 0 fails: its mean is 0/0."""
        weights = self._weights(references)
        return score_distinct(pairs, lambda texts: self._compute(texts, weights))

    def _compute(self, texts: list[Texts], weights: dict[int, float]) -> list[Score]:
        scores = {text: self._score([value] * 3, 0) for text in texts if (value := ruling(*text)) is not None}
        counts = {text: self._counts(text) for text in texts if text not in scores}
        # Neighbours of like length need little padding.
        order = sorted(counts, key=lambda text: (sum(counts[text]), text))
        for start in range(0, len(order), CHUNK * self.batch_size):
            chunk = order[start : start + CHUNK * self.batch_size]
            # A side of which the preprocessing leaves no token scores 0, as in the library, which warns on stderr.
            found = self._library([text for text in chunk if all(counts[text])], weights)
            for text in chunk:
                scores[text] = self._score(found.get(text, [0.0] * 3), self._cuts(counts[text]))
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

        if self.idf == "references":
            texts = [preprocess(text, self.preprocess) for text in references]
            # No process pool: forking after a model is loaded is slow and unsafe.
            weights: dict[int, float] = get_idf_dict(texts, self._tokenizer, nthreads=0)
            return weights
        specials = self._tokenizer.build_inputs_with_special_tokens([])
        return defaultdict(lambda: 1.0, dict.fromkeys(specials, 0.0))

    def _score(self, values: list[float], truncated: int) -> Score:
        """`values`: precision, recall, f1 of the library, which repairs a 0/0 in the last one only."""
        if any(map(math.isnan, values)):
            return Score({}, "the idf weights of a text add up to 0: every reference has each of its tokens")
        return Score(dict(zip(self.values, [float(truncated), *values], strict=True)))

    def _counts(self, text: Texts) -> list[int]:
        """Tokens of reference and candidate, without the special ones, before any cut."""
        return [len(self._tokenizer.tokenize(preprocess(side, self.preprocess).strip())) for side in text]

    def _cuts(self, counts: list[int]) -> int:
        room = self._tokenizer.model_max_length - self._tokenizer.num_special_tokens_to_add()
        return sum(count > room for count in counts)

    def _library(self, texts: list[Texts], weights: dict[int, float]) -> dict[Texts, list[float]]:
        """Precision, recall and f1 per pair: each distinct text is embedded once, each pair matched on its own.

        The library matches padded batches and masks with 0. Where a token's best cosine is negative, the padding wins,
        so that a value depends on the batch; one pair per call, as the ImageCLEF evaluators do it, needs no padding.
        """
        import torch
        from bert_score.utils import greedy_cos_idf

        pairs = {text: [preprocess(side, self.preprocess) for side in text] for text in texts}
        vectors = self._embed({side for sides in pairs.values() for side in sides}, weights)
        found = {}
        for text, sides in pairs.items():
            # Clones, because the library normalises in place.
            inputs = [part.clone() for side in sides for part in vectors[side]]
            found[text] = torch.cat(greedy_cos_idf(*inputs)).tolist()
        return found

    def _embed(self, sides: set[str], weights: dict[int, float]) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """Vectors [1, tokens, width], mask [1, tokens] and weights [1, tokens] per text."""
        from bert_score.utils import get_bert_embedding

        device = next(self._model.parameters()).device
        order = sorted(sides, key=lambda side: (len(side), side))
        result = {}
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            parts = get_bert_embedding(batch, self._model, self._tokenizer, weights, device=device)
            for row, (side, tokens) in enumerate(zip(batch, parts[1].sum(dim=1).tolist(), strict=True)):
                vectors, mask, idf = (part[row : row + 1, :tokens] for part in parts)
                result[side] = (vectors, mask, idf)
        return result
