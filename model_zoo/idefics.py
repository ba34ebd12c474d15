"""IDEFICS: a CLIP vision tower, a perceiver and a Llama with gated cross-attention, which is how it sees a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from PIL import Image
from transformers import IdeficsConfig, IdeficsForVisionText2Text, IdeficsImageProcessor

from harness.contracts import RUNTIME, Decoding, RequestError, Seen, Site
from model_zoo.base.sites import usual_sites
from model_zoo.base.tower import FEATURES, PIXELS, TowerCaptioner

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import GenerationConfig

FAKE = "<fake_token_around_image>"
IMAGE = "<image>"
END = "<end_of_utterance>"
LANGUAGE = r"model\.(layers|gated_cross_attn_layers)\.\d+"
VISION = r"model\.vision_model\.encoder\.layers\.\d+"
PERCEIVER = r"model\.perceiver_resampler\.blocks\.\d+"


@dataclass(eq=False)
class Idefics(TowerCaptioner):
    """IdeficsForVisionText2Text, as HuggingFaceM4/idefics-9b-instruct stores it.

    Three added tokens have weights of their own beside those of Llama's words, in the head and in the embeddings. The
    tokenizer puts the blank before an answer itself: `lead` stays empty.
    """

    attention: Annotated[Literal["eager", "sdpa"], RUNTIME]

    config_class = IdeficsConfig
    model_class = IdeficsForVisionText2Text
    image_processor_class = IdeficsImageProcessor  # IdeficsProcessor would fetch a question that looks like an address
    tower = "model.vision_model"
    entrance = (tower, "forward")
    sites = usual_sites(
        LANGUAGE,
        VISION,
        qkv=rf"{LANGUAGE}\.(self|cross)_attn\.[qkv]_proj",
        o=rf"{LANGUAGE}\.(self|cross)_attn\.o_proj",
        connector=rf"{PERCEIVER}\.(0\.([qkv]_proj|output_proj)|1\.(fc|c_proj))",
        embeddings=r"model\.embed_tokens",
    ) | {"r_qkv": Site(rf"{PERCEIVER}\.0\.[qkv]_proj", "connector")}  # part of connector
    regions = (
        (r"model\.vision_model", "vision"),
        (r"model\.perceiver_resampler", "connector"),
        (r"model\.embed_tokens", "embeddings"),
        (r"model\.(layers|gated_cross_attn_layers|norm)", "language"),
        (r"lm_head", "head"),
    )

    @property
    def unreached(self) -> tuple[str, ...]:
        """The norm of CLIP's pooled output: the perceiver reads the patches."""
        return ("model.vision_model.post_layernorm",)

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer, with the three added tokens as special ones: no question may spell them."""
        tokenizer = super().tokenizer
        added = {"additional_special_tokens": [FAKE, IMAGE, END]}
        tokenizer.add_special_tokens(added, replace_additional_special_tokens=False)
        first, more = self.config.vocab_size, self.config.additional_vocab_size
        found = sorted(tokenizer.convert_tokens_to_ids([FAKE, IMAGE, END]))
        if found != [first, first + 1, first + 2] or more < len(found):
            raise RequestError(
                f"{self.folder()}: expected {FAKE}, {IMAGE} and {END} as the first of the {more} tokens added to "
                f"{first}, the tokenizer gives the ids {found}; get an instruct checkpoint whose files belong together"
            )
        return tokenizer

    @property
    def stops(self) -> tuple[int, ...]:
        """The end of an utterance."""
        return (self.tokenizer.convert_tokens_to_ids(END),)

    def encode(self, images: Sequence[Image.Image], prompt: str) -> Seen:
        """Prompt ids with one image token per picture, and pixel_values (1, pictures, 3, side, side)."""
        if not images:
            raise RequestError(f"{self.name}: expected one picture or more per sample, got none")
        marks = FAKE + f"{IMAGE}{FAKE}" * len(images)
        text = f"{self.tokenizer.bos_token}User:{marks}{prompt}{END}\nAssistant:"
        side = self.config.vision_config.image_size
        # Squashed as the image processor does it, which would take a picture of 3 rows for one of 3 channels.
        squares = [image.resize((side, side), Image.Resampling.BICUBIC) for image in images]
        pixels = self.image_processor(squares, image_size=side, return_tensors="pt")
        return Seen(self.tokenizer(text, add_special_tokens=False)["input_ids"], {"pixel_values": pixels[None]})

    def batch(self, rows: Sequence[Seen], captions: Sequence[str], limit: int) -> dict[str, Tensor]:
        """As the base class does, with `image_attention_mask`."""
        return self._looking(super().batch(rows, captions, limit))

    def prompts(self, rows: Sequence[Seen]) -> dict[str, Tensor]:
        """As the base class does, with `image_attention_mask`."""
        return self._looking(super().prompts(rows))

    def _looking(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add which picture each place looks at, the last one before it: (rows, width, pictures) of 0 and 1."""
        seen = (batch["input_ids"] == self.tokenizer.convert_tokens_to_ids(IMAGE)).cumsum(1)
        pictures = torch.arange(1, batch[FEATURES if FEATURES in batch else PIXELS].shape[1] + 1)
        return batch | {"image_attention_mask": (seen[..., None] == pictures).long()}

    def generation_config(self, decoding: Decoding) -> GenerationConfig:
        """Greedy decoding as everywhere; a caption cannot announce a picture that is not there."""
        config = super().generation_config(decoding)
        config.bad_words_ids = [[token] for token in self.tokenizer.convert_tokens_to_ids([FAKE, IMAGE])]
        return config

    def watch(self, inputs: dict[str, Tensor]) -> Tensor:
        """(1, pictures, patches, width) of one row."""
        features: Tensor = self.model.get_submodule(self.tower)(pixel_values=inputs[PIXELS][0]).last_hidden_state
        return features[None]

    def replay(self, features: Tensor, *arguments: Any) -> Any:
        """CLIP's output, as far as it is read."""
        return SimpleNamespace(last_hidden_state=features)
