"""ViT and GPT-2 in lockstep: GPT-2 block i cross-attends to the output of ViT block i."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

_STATES = 5  # the position of encoder_hidden_states among the arguments of a GPT-2 block


class VisionGPT2Net(nn.Module):
    """A ViTModel and a GPT2LMHeadModel with cross-attention, of as many blocks and the same width.

    GPT2Model hands one and the same picture state to all blocks; a hook per block puts the block's own in its place.
    """

    def __init__(self, vit: nn.Module, gpt2: Any) -> None:
        super().__init__()
        vit.layernorm = nn.Identity()  # the block outputs are used as they are
        self.vit = vit
        self.gpt2 = gpt2
        self._states: tuple[Tensor, ...] = ()  # kept after a pass: gradient checkpointing runs the blocks again
        for index, block in enumerate(gpt2.transformer.h):
            block.register_forward_pre_hook(self._lockstep(index))

    def _lockstep(self, index: int) -> Any:
        def own_state(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            return (*arguments[:_STATES], self._states[index], *arguments[_STATES + 1 :])

        return own_state

    def _look(self, pixel_values: Tensor) -> Tensor:
        seen = self.vit(pixel_values, output_hidden_states=True).hidden_states
        self._states = seen[1:]  # the first one is the embeddings
        return self._states[0]

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor) -> Any:
        """Logits (batch, length, vocabulary) as `.logits`. pixel_values: (batch, 3, height, width)."""
        states = self._look(pixel_values)
        return self.gpt2(input_ids=input_ids, attention_mask=attention_mask, encoder_hidden_states=states)

    def generate(self, input_ids: Tensor, pixel_values: Tensor, **options: Any) -> Any:
        """GPT-2's own generation; the pictures are encoded once."""
        return self.gpt2.generate(input_ids, encoder_hidden_states=self._look(pixel_values), **options)
