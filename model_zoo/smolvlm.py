"""SmolVLM: a SigLIP vision tower, a pixel-shuffle connector and a Llama language model (the Idefics3 classes)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor

from harness.contracts import Seen
from harness.encoders.checkpoint import require
from model_zoo.base.language import LanguageCaptioner
from model_zoo.base.sites import usual_sites
from model_zoo.base.tower import PIXELS
from model_zoo.nets.idefics3_pixels import QuickImageProcessor, count

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

LANGUAGE = r"model\.text_model\.layers\.\d+"
VISION = r"model\.vision_model\.encoder\.layers\.\d+"


@dataclass(eq=False)
class SmolVLM(LanguageCaptioner):
    """Idefics3ForConditionalGeneration, as HuggingFaceTB/SmolVLM-500M-Instruct stores it.

    longest_edge, image_splitting: None keeps what the checkpoint's preprocessor_config.json says.
    """

    longest_edge: int | None
    image_splitting: bool | None

    config_class = Idefics3Config
    model_class = Idefics3ForConditionalGeneration
    lead = " "
    tower = "model.vision_model"
    language = "model.text_model"
    entrance = ("model", "get_image_features")
    replaced = (PIXELS, "pixel_attention_mask")
    sites = usual_sites(
        LANGUAGE,
        VISION,
        connector=r"model\.connector\.modality_projection\.proj",
        embeddings=r"model\.text_model\.embed_tokens",
    )
    regions = (
        (r"model\.vision_model", "vision"),
        (r"model\.connector", "connector"),
        (r"model\.text_model\.embed_tokens", "embeddings"),
        (r"model\.text_model", "language"),
        (r"lm_head", "head"),
    )

    @cached_property
    def config(self) -> Any:
        """The checkpoint's configuration."""
        config = super().config
        # The hub file's top-level pad id lies outside the vocabulary; the text model's is right.
        config.pad_token_id = config.text_config.pad_token_id
        return config

    @cached_property
    def processor(self) -> Any:
        """Slow image processor and tokenizer: the SmolVLM classes would need torchvision."""
        folder = self.folder()
        require(folder, "preprocessor_config.json")
        require(folder, "tokenizer.json")
        processor = Idefics3Processor.from_pretrained(folder, local_files_only=True)
        # Said by the model, not by a file that may be missing: a wrong number of image tokens raises no error.
        vision = self.config.vision_config
        processor.image_seq_len = (vision.image_size // vision.patch_size) ** 2 // self.config.scale_factor**2
        # On the image processor itself: given in a call, do_image_splitting=False is ignored without a word.
        if self.longest_edge is not None:
            processor.image_processor.size = {"longest_edge": self.longest_edge}
        if self.image_splitting is not None:
            processor.image_processor.do_image_splitting = self.image_splitting
        processor.image_processor = QuickImageProcessor.from_dict(processor.image_processor.to_dict())
        processor.image_processor.check(f"{folder}/preprocessor_config.json")
        return processor

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer."""
        return self.processor.tokenizer

    @property
    def stops(self) -> tuple[int, ...]:
        """The end of an utterance, as in the chat template."""
        return (self.tokenizer.convert_tokens_to_ids(self.processor.end_of_utterance_token),)

    def encode(self, images: Sequence[Image.Image], prompt: str) -> Seen:
        """Chat-template ids with 64 image tokens per tile, pixel_values (1, tiles, 3, height, width) and their mask."""
        content = [{"type": "image"} for _ in images] + [{"type": "text", "text": prompt}]
        text = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        batch = self.processor(text=[text], images=[list(images)], return_tensors="pt")
        vision = {key: torch.as_tensor(batch[key]) for key in ("pixel_values", "pixel_attention_mask")}
        return Seen(batch["input_ids"][0].tolist(), vision)

    def watch(self, inputs: dict[str, Tensor]) -> Tensor:
        """(frames, patches, width) of the frames of one row."""
        features: Tensor = self.model.get_submodule(self.tower)(pixel_values=inputs[PIXELS][0]).last_hidden_state
        return features

    def replay(self, features: Tensor, *arguments: Any) -> Any:
        """Image tokens (frames, 64, width), as the connector makes them."""
        return self.model.get_submodule("model.connector")(features)

    def places(self, size: tuple[int, int]) -> int:
        """64 image tokens for each tile and the whole picture."""
        pixels = self.processor.image_processor
        edge, tile = pixels.size["longest_edge"], pixels.max_image_size["longest_edge"]
        return int(self.processor.image_seq_len) * count(size, edge, tile, split=pixels.do_image_splitting)
