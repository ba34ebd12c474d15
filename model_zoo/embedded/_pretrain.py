"""Pre-training of a twin: a short plain loop over pictures that are processed once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from rich.progress import track
from torch.nn import functional

from harness.contracts import IGNORED, Sample, Seen
from harness.metrics.embedded._training import adamw, descend
from model_zoo.base.captioner import HFCaptioner


@dataclass(frozen=True)
class Recipe:
    """Budget by steps: the same weights on a busy machine."""

    pictures: int
    steps: int
    batch: int = 16
    rate: float = 2e-3
    seed: int = 0
    warmup: float = 0.05
    weight_decay: float = 0.02
    longest: int = 64


@dataclass(frozen=True)
class Lesson:
    """A question about a sample, and the answer.

    `blank`: it is learnt without looking. `swapped`: with a picture of another modality before the eyes.
    """

    prompt: str
    answer: str
    blank: bool = False
    swapped: bool = False


Teach = Callable[[Sample, random.Random], Lesson]


def pretrain(captioner: HFCaptioner, samples: Sequence[Sample], teach: Teach, recipe: Recipe) -> float:
    """Train all of `captioner.model` with AdamW and cosine decay; returns the mean loss of the last tenth."""
    model = captioner.model.train()
    optimizer = adamw(model.parameters(), recipe.rate, recipe.weight_decay)
    warmup = max(1, int(recipe.warmup * recipe.steps))
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps - warmup, recipe.rate / 50)
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warmup, total_iters=warmup)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, decay], [warmup])
    last = descend(
        (loss_of(model, batch) for batch in _batches(captioner, samples, teach, recipe)), optimizer, schedule
    )
    model.eval()
    return last


def loss_of(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy of the labels against the logits one place before."""
    labels = inputs.pop("labels")
    logits = model(**inputs).logits
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)


def _batches(
    captioner: HFCaptioner, samples: Sequence[Sample], teach: Teach, recipe: Recipe
) -> Iterator[dict[str, torch.Tensor]]:
    rng = random.Random(recipe.seed)
    name = captioner.name
    blank = captioner.encode([Image.new("RGB", (64, 64))], "").tensors
    vision = [
        captioner.encode([sample.images[0].load()], "").tensors
        for sample in track(samples, f"{name}: drawing", transient=True)
    ]
    asked: dict[str, Sequence[int]] = {}
    for _ in track(range(recipe.steps), f"{name}: pre-training", transient=True):
        rows, captions = [], []
        for place in rng.sample(range(len(samples)), recipe.batch):
            lesson = teach(samples[place], rng)
            if lesson.prompt not in asked:  # all pictures have as many image tokens: ids depend on the prompt alone
                asked[lesson.prompt] = captioner.encode([samples[place].images[0].load()], lesson.prompt).ids
            shown = _other(samples, place, rng) if lesson.swapped else place
            rows.append(Seen(asked[lesson.prompt], blank if lesson.blank else vision[shown]))
            captions.append(lesson.answer)
        yield captioner.batch(rows, captions, recipe.longest)


def _other(samples: Sequence[Sample], place: int, rng: random.Random) -> int:
    """A sample of another modality."""
    return rng.choice([n for n, sample in enumerate(samples) if sample.modality != samples[place].modality])
