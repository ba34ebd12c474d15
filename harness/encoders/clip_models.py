"""CLIP-like models of transformers (CLIP, SigLIP, MedSigLIP) and of open_clip (BiomedCLIP)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from harness.contracts import RequestError
from harness.encoders.checkpoint import quiet
from harness.encoders.weights import check_loaded
from harness.machine.bfloat16 import inference

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

MAY_LACK = r".*position_ids"  # buffers that older checkpoints do not hold and newer ones do not want


class TransformersPair:
    """A model with `get_image_features` and `get_text_features`; pictures and texts are prepared as its files say."""

    def __init__(self, folder: Path, device: str, dtype: torch.dtype) -> None:
        try:
            model, info = self._read(folder, dtype)
        except (OSError, ValueError, ImportError) as error:  # what transformers raises where a file is not there
            raise RequestError(
                f"{folder}: expected model, tokenizer and preprocessor_config.json, but transformers cannot read it: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
        if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
            raise RequestError(
                f"{folder}: expected a model of pictures and texts such as CLIP or SigLIP, got {type(model).__name__}"
            )
        check_loaded(folder, model, info, MAY_LACK, MAY_LACK)
        self.model: Any = model.to(device).eval()
        self.context: int = model.config.text_config.max_position_embeddings
        # SigLIP reads its vector off the last place, without a mask; the others see no padding.
        self.padding = "max_length" if model.config.model_type.startswith("siglip") else "longest"
        self.device = device

    def _read(self, folder: Path, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        local = {"local_files_only": True, "trust_remote_code": False}
        with quiet():
            # The slow processor: the fast ones need torchvision, and differ in the last bits.
            self.processor: Any = AutoImageProcessor.from_pretrained(folder, use_fast=False, **local)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, **local)
            model, info = AutoModel.from_pretrained(folder, dtype=dtype, output_loading_info=True, **local)
        return model, info

    def images(self, pictures: Sequence[Image.Image]) -> Tensor:
        """(N, width), of length 1."""
        # A picture of 3 rows would be taken for one of 3 channels.
        inputs = self.processor(list(pictures), return_tensors="pt", input_data_format="channels_last")
        pixels = inputs["pixel_values"].to(self.device, self.model.dtype)
        return self._run(self.model.get_image_features, pixel_values=pixels)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """(N, width), of length 1."""
        inputs = self.tokenizer(
            list(texts), padding=self.padding, max_length=self.context, truncation=True, return_tensors="pt"
        )
        return self._run(self.model.get_text_features, **inputs.to(self.device))

    def cut(self, text: str) -> bool:
        """Whether the text has more tokens than the encoder reads."""
        room = self.context - self.tokenizer.num_special_tokens_to_add()
        return bool(len(self.tokenizer.tokenize(text)) > room)

    def _run(self, encode: Any, **inputs: Tensor) -> Tensor:
        with inference(self.model.dtype, self.model.device):
            return functional.normalize(encode(**inputs).float(), dim=-1).cpu()


class OpenClipPair:
    """A model folder with an `open_clip_config.json`."""

    def __init__(self, folder: Path, device: str, dtype: torch.dtype) -> None:
        import open_clip

        name = f"local-dir:{folder}"
        try:
            self.model, self.prepare = open_clip.create_model_from_pretrained(name, device=device)
            self.tokenizer = open_clip.get_tokenizer(name)
        except OSError as error:  # BiomedCLIP's folder lacks the config of its text model
            raise RequestError(
                f"{folder}: open_clip found no file of the text model that open_clip_config.json names "
                f"(hf_model_name): hf download it too ({' '.join(str(error).split())[:200]})"
            ) from error
        self.model.eval()
        self.device, self.dtype = device, dtype

    def images(self, pictures: Sequence[Image.Image]) -> Tensor:
        """(N, width), of length 1."""
        pixels = torch.stack([self.prepare(picture) for picture in pictures]).to(self.device)
        return self._run(self.model.encode_image, pixels)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """(N, width), of length 1."""
        return self._run(self.model.encode_text, self.tokenizer(list(texts)).to(self.device))

    def cut(self, text: str) -> bool:
        """Whether a further word would not be read: open_clip's tokenizers cut without telling."""
        ids, longer = self.tokenizer([text, f"{text} x"])
        return bool((ids == longer).all())

    def _run(self, encode: Any, inputs: Tensor) -> Tensor:
        device, cast = torch.device(self.device), self.dtype is torch.bfloat16
        with inference(self.dtype, device), torch.autocast(device.type, torch.bfloat16, enabled=cast):
            return functional.normalize(encode(inputs).float(), dim=-1).cpu()
