"""Language models that are transformers' own, and leave their captioner so that another engine can run them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from transformers import AutoModelForCausalLM
from transformers.modeling_outputs import BaseModelOutputWithPast

from model_zoo.base.captioner import inference
from model_zoo.base.tower import TowerCaptioner, replaced

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from harness.contracts import Example


class LanguageCaptioner(TowerCaptioner):
    """Pictures become embeddings here, by the same code as ever; the language model gets them in the prompt's places.

    language: the module in which it lies, without its head.
    """

    language: ClassVar[str]

    def unexportable(self) -> str | None:
        """Quantised layers are bitsandbytes' own."""
        return None if self.scheme is None else f"its layers are quantised (model.dtype={self.scheme})"

    def export(self, folder: Path) -> None:
        """Write the language model with its head: config.json and safetensors, as its class of transformers does."""
        language: Any = self.model.get_submodule(self.language)
        head, words = self.model.get_submodule("lm_head").weight, language.embed_tokens.weight
        config = copy.deepcopy(language.config)
        config.tie_word_embeddings = head is words
        with torch.device("meta"):
            alone = AutoModelForCausalLM.from_config(config)
        state = {f"model.{name}": tensor for name, tensor in language.state_dict().items()}
        alone.load_state_dict(state | {"lm_head.weight": head}, assign=True)
        alone.tie_weights()
        alone.save_pretrained(folder)

    def embed(self, example: Example) -> Tensor:
        """(places, width). One at a time: there is nothing to pad, and no picture changes another one."""
        language: Any = self.model.get_submodule(self.language)
        device = language.embed_tokens.weight.device
        inputs = {name: tensor.to(device) for name, tensor in self.prompts([self.row(example)]).items()}
        with inference(self.model), self.using_features(inputs), self._listening() as heard:
            self.model(**inputs)
        return heard[0][0]

    def give_up_language(self) -> None:
        """The word embeddings stay."""
        self.model.get_submodule(f"{self.language}.layers").to("meta")

    @contextmanager
    def _listening(self) -> Iterator[list[Tensor]]:
        """Within it the language model keeps what it gets, and computes nothing."""
        heard: list[Tensor] = []

        def keep(*, inputs_embeds: Tensor, **_: Any) -> BaseModelOutputWithPast:
            heard.append(inputs_embeds)
            return BaseModelOutputWithPast(last_hidden_state=inputs_embeds[:, -1:])

        with replaced(self.model.get_submodule(self.language), "forward", keep):
            yield heard
