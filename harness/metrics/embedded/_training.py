"""Training loop of the embedded checkpoints: budget by steps, so that a busy machine gives the same weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from rich.progress import track
from tokenizers import Tokenizer, models, pre_tokenizers, trainers  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn import functional

from harness.metrics.embedded._lessons import FACTS, TERMS, Lesson, lessons


@dataclass(frozen=True)
class Recipe:
    """`seed` draws the initial weights and the lessons."""

    steps: int
    batch: int
    rate: float
    seed: int = 0
    warmup: float = 0.05
    weight_decay: float = 0.01


class Tutor(nn.Module):
    """Heads for the training only: a label alone is a slow teacher, which does not find the words that matter.

    `facts` reads from the first layer what either text states, `wrong` from the pooled vector which facts are kept.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.facts = nn.Linear(width, len(TERMS))
        self.wrong = nn.Linear(width, len(FACTS))

    def loss(self, first_layer: Tensor, segments: Sequence[Tensor], pooled: Tensor, batch: Sequence[Lesson]) -> Tensor:
        """first_layer (batch, tokens, width), two masks (batch, tokens) of the texts' tokens, pooled (batch, width)."""
        kept = [lesson.kept for lesson in batch]
        right = [[bool(one) for one in row] for row in kept]
        total = _cross_entropy(self.wrong(pooled), right, [[one is not None for one in row] for row in kept])
        stated = ([lesson.truth for lesson in batch], [lesson.said for lesson in batch])
        for mask, texts in zip(segments, stated, strict=True):
            weights = mask.float().unsqueeze(-1)
            mean = (first_layer * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
            truth = [[getattr(factors, fact, None) == value for fact, value in TERMS] for factors in texts]
            known = [[factors is not None] * len(TERMS) for factors in texts]
            total = total + 5 * _cross_entropy(self.facts(mean), truth, known)
        return total


def _cross_entropy(logits: Tensor, truth: Sequence[Sequence[bool]], known: Sequence[Sequence[bool]]) -> Tensor:
    losses = functional.binary_cross_entropy_with_logits(logits, torch.tensor(truth).float(), reduction="none")
    return losses[torch.tensor(known)].mean()


def train(model: nn.Module, loss_of: Callable[[Sequence[Lesson]], Tensor], recipe: Recipe, name: str) -> float:
    """Train all of `model` with AdamW and cosine decay; returns the mean loss of the last tenth."""
    optimizer = adamw(model.parameters(), recipe.rate, recipe.weight_decay)
    warmup = max(1, int(recipe.warmup * recipe.steps))

    def share(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.01 + 0.99 * (1 + math.cos(math.pi * (step - warmup) / (recipe.steps - warmup))) / 2

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    source = lessons(recipe.seed)
    model.train()
    steps = track(range(recipe.steps), f"{name}: training", transient=True)
    last = descend((loss_of([*islice(source, recipe.batch)]) for _ in steps), optimizer, schedule)
    model.eval()
    return last


def byte_level_bpe(texts: Iterable[str], special: list[str], vocabulary: int) -> Tokenizer:
    """The tokenizer of GPT-2's and RoBERTa's kind, learnt from texts; `special` gets the first ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def adamw(parameters: Iterable[nn.Parameter], rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """The optimizer of every embedded checkpoint."""
    return torch.optim.AdamW(parameters, rate, betas=(0.9, 0.98), weight_decay=weight_decay)


def descend(
    losses: Iterable[Tensor], optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler
) -> float:
    """One step down each loss, which is computed when it is asked for; returns the mean of the last tenth."""
    done = []
    for loss in losses:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([weight for group in optimizer.param_groups for weight in group["params"]], 1.0)
        optimizer.step()
        schedule.step()
        done.append(loss.item())
    last = done[-max(1, len(done) // 10) :]
    return sum(last) / len(last)
