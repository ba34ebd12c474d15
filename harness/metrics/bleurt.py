"""BLEURT (Sellam et al. 2020, arXiv 2004.04696): a regressor trained on human ratings reads both texts at once."""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from harness.contracts import RUNTIME, RequestError
from harness.encoders.checkpoint import digest, how_to_get, locate, missing_package, quiet
from harness.metrics._cross_encoder import CrossEncoder, Reading, longest_first
from harness.metrics._text import Preprocess, Texts, preprocess

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1  # raise it with any change of this file or of _cross_encoder.py that changes a value
MAX_TOKENS = 512  # of both texts, special tokens included: all positions of the published models
EMBEDDED = Path(__file__).parent / "embedded" / "bleurt"
VOCABULARY = "spm.model"
POSITIONS = r".*position_ids"  # no weight


class Bleurt(CrossEncoder):
    """The bleurt-pytorch library's logit for a BLEURT-20 checkpoint: about 0 to 1, but unbounded.

    `truncated` counts the sides (0, 1, 2) that were cut at 512 tokens together. An empty text has the model's value,
    two empty ones 1. A pair scores the same in any company, up to the rounding of the dtype (1e-6 in float32).
    checkpoint "embedded": a toy of half a million parameters that was trained on the facts (modality, region, finding,
    side) of phantom captions. It notices a changed fact in 97 % or more of held-out ones. Arrows, sizes and everything
    outside the phantoms' few words, so all real captions, are beyond it: comparable with nothing.
    """

    def __init__(
        self,
        name: str,
        checkpoint: Annotated[str, RUNTIME],  # its content is hashed
        preprocess: Preprocess,
        dtype: Literal["float32", "bfloat16"],
        batch_size: Annotated[int, RUNTIME],
    ) -> None:
        super().__init__(name, checkpoint, dtype, batch_size, str(EMBEDDED))
        self.preprocess = preprocess

    def missing(self) -> str | None:
        """Missing part and the command that helps; None when all is there. Reads no weight."""
        package = missing_package("bleurt_pytorch", "bleurt-pytorch")
        if package:
            return package
        folder = locate(self.source)
        if folder is None:
            return how_to_get(self.checkpoint)
        if not (folder / VOCABULARY).is_file():
            # The library would fall back on a WordPiece tokenizer, and score on in silence.
            return f"expected a BLEURT-20 checkpoint with {VOCABULARY} in {folder}, found none: use another one"
        return None

    def signature(self) -> str:
        """Name, version and options: what a value depends on besides its texts."""
        libraries = f"lib={version('bleurt-pytorch')}|transformers={version('transformers')}"
        options = f"preprocess={self.preprocess}|dtype={self.dtype}|max_tokens={MAX_TOKENS}"
        return f"{self.name}|v={VERSION}|{libraries}|ckpt={self._digest}|{options}"

    def load(self, device: str, features: MutableMapping[str, bytes]) -> None:
        """Read tokenizer and model. Raises RequestError when the weights do not fit the configuration."""
        folder = self._folder
        with quiet():
            import torch
            from bleurt_pytorch import BleurtForSequenceClassification
            from bleurt_pytorch.bleurt.tokenization_bleurt_sp import BleurtSPTokenizer

            from harness.encoders.weights import check_loaded

            self._tokenizer = BleurtSPTokenizer.from_pretrained(folder)
            model, info = BleurtForSequenceClassification.from_pretrained(
                folder, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
            )
        check_loaded(folder, model, info, POSITIONS, POSITIONS)
        self._limit = min(MAX_TOKENS, model.config.max_position_embeddings)
        self._net = model.to(device=device, dtype=getattr(torch, self.dtype)).eval()

    def _readings(self, texts: list[Texts]) -> dict[Texts, Reading]:
        # Both empty is 1 by ruling; one of them empty is the model's to judge, as in the official evaluators.
        how = self.preprocess
        clean = {(one, two): (preprocess(one, how), preprocess(two, how)) for one, two in texts if one or two}
        found = self._read(clean.values(), longest_first)
        return {text: found[clean[text]] if text in clean else Reading(1.0, 0) for text in texts}

    def _values(self, output: Any) -> Tensor:
        return output.logits[:, 0]  # type: ignore[no-any-return]

    @cached_property
    def _folder(self) -> Path:
        problem, folder = self.missing(), locate(self.source)
        if problem or folder is None:
            raise RequestError(f"metric {self.name}: {problem}")
        return folder

    @cached_property
    def _digest(self) -> str:
        return digest(self._folder)[:12]
