"""The loss of a fit: cross-entropy over the answers, whose places alone go through the output head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from harness.contracts import IGNORED


def caption_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """Cross-entropy of the next token over the supervised positions (labels other than IGNORED).

    logits [batch, length, vocabulary], or [supervised positions, vocabulary] within `supervised_only`; labels [batch,
    length]. The sum is divided by the number of supervised tokens of the whole update, so that gradient accumulation
    gives the update of the large batch.
    """
    logits, targets = outputs.logits, labels[:, 1:]
    supervised = targets != IGNORED
    if logits.dim() == 3:
        logits = logits[:, :-1][supervised]
    total = functional.cross_entropy(logits.float(), targets[supervised], reduction="sum")
    return total / (num_items_in_batch if num_items_in_batch is not None else supervised.sum())


@contextmanager
def supervised_only(model: Any, labels: torch.Tensor) -> Iterator[None]:
    """Within it the model gives logits for supervised positions only, (positions, vocabulary), row after row.

    A caption is a tenth of its row or less, most of which is picture: so are the time and the memory of the head. This
    is not the library's `logits_to_keep`, which takes the same positions of all rows and is not there in every family.
    A model without an output head of its own is left as it is.
    """
    find = getattr(model, "get_output_embeddings", None)
    head: nn.Module | None = find() if find else None
    if head is None:
        yield
        return
    supervised = labels[:, 1:] != IGNORED

    def pick(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        states = given[0]
        return (states[:, :-1][supervised], *given[1:]) if states.shape[:2] == labels.shape else None

    hook = head.register_forward_pre_hook(pick)
    try:
        yield
    finally:
        hook.remove()
