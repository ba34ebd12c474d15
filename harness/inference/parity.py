"""Whether a captioner computes the same in a batch, under padding, with its adapter merged, and saved and reloaded.

Published comparisons have been wrong by each of these: left out attention masks, padding on the wrong side, adapters
that load as nothing. Two ways of computing agree when all greedy captions are equal and no logit of a caption differs
by more than rounding explains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from harness.contracts import Captioner, Decoding, Example, Plan, Refused, Strategy
from harness.machine import memory
from harness.machine.bfloat16 import emulation_for

if TYPE_CHECKING:
    from torch import Tensor, nn

Verdict = Literal["same", "near tie", "differs", "dead", "refused"]
HEALTHY = ("same", "near tie", "refused")
"""Scores can be trusted as far as such a check goes."""

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.02}
"""Largest difference of logits that counts as rounding, as a share of the largest logit."""
NOISE = 0.05
"""Standard deviation of what stands in for training: enough to change captions, not enough to break them."""
PROMPTS = (
    "Describe this medical image.",
    "What is it?",
    "Describe this medical image. Take your time and name all that can be seen.",
)


@dataclass(frozen=True)
class Finding:
    """One comparison. difference: largest absolute difference of logits; first: the first differing token in words."""

    check: str
    verdict: Verdict
    difference: float | None = None
    first: str = ""

    @property
    def healthy(self) -> bool:
        """Whether scores can be trusted as far as this check goes."""
        return self.verdict in HEALTHY


@dataclass(frozen=True)
class Outputs:
    """What a captioner says to some examples, and its logits (answer tokens, vocabulary) for reference captions."""

    captions: list[str]
    logits: list[Tensor]


@dataclass
class ParityCase:
    """A captioner on its device, the examples it is asked, and how it decodes."""

    captioner: Captioner
    examples: Sequence[Example]
    decoding: Decoding

    def captions(self, size: int) -> list[str]:
        """Greedy captions in batches of `size`."""
        batches = self._batches(self.examples, size)
        with emulation_for(self.captioner.model):
            return [made.caption for batch in batches for made in self.captioner.generate(batch, self.decoding)]

    def outputs(self, captions: Sequence[str], size: int) -> Outputs:
        """Captions in batches of `size`, and the logits of the given captions in such batches."""
        pairs = zip(self.examples, captions, strict=True)
        told = [replace(example, caption=caption) for example, caption in pairs]
        return Outputs(self.captions(size), [row for batch in self._batches(told, size) for row in self._logits(batch)])

    def answer(self, caption: str) -> tuple[int, ...]:
        """The caption's token ids, one more than may be generated: with the stop token."""
        return self.captioner.answer(caption, self.decoding.max_new_tokens + 1).ids

    @torch.no_grad()
    def _logits(self, batch: Sequence[Example]) -> Iterator[Tensor]:
        model = self.captioner.model.eval()
        inputs = self.captioner.collate(batch, self.decoding.max_new_tokens + 1)
        device = next(model.parameters()).device
        supervised = inputs.pop("labels")[:, 1:] != -100
        with emulation_for(model):
            logits = model(**{name: tensor.to(device) for name, tensor in inputs.items()}).logits[:, :-1]
        for row, places in zip(logits.float().cpu(), supervised, strict=True):
            yield row[places]

    @staticmethod
    def _batches(examples: Sequence[Example], size: int) -> Iterator[Sequence[Example]]:
        for start in range(0, len(examples), size):
            yield examples[start : start + size]


def check_batches(case: ParityCase) -> Iterator[Finding]:
    """One by one against all at once: first with one question for all, then with questions of different lengths."""
    original = case.examples
    for check, prompts in (("batch", PROMPTS[:1]), ("padding", PROMPTS)):
        asked = [Example(e.images, prompts[place % len(prompts)]) for place, e in enumerate(original)]
        if check == "padding" and not case.captioner.prompted:
            continue  # it is not asked: its rows have one length
        case = ParityCase(case.captioner, asked, case.decoding)
        captions = case.captions(1)
        yield compared(check, case, captions, case.outputs(captions, 1), case.outputs(captions, len(asked)))


def check_adapter(
    case: ParityCase, strategy: Strategy, fresh: Callable[[], Captioner], folder: Path
) -> Iterator[Finding]:
    """The strategy's weights, moved at random: they must change something, and do the same merged and reloaded.

    `fresh` loads the captioner again; the first one's model is given up before.
    """
    size = len(case.examples)
    plan = strategy.plan(case.captioner)
    untouched = case.captions(size)
    before = case.outputs(untouched, size)
    model = strategy.attach(case.captioner, plan)
    move_weights(model)
    captions = case.captions(size)
    change = _largest(before.logits, case.outputs(untouched, size).logits)
    if change == 0:
        yield Finding("adapter", "dead", change, "the adapter changes no logit")
        return
    moved = case.outputs(captions, size)
    strategy.save(model, plan, folder)
    if plan.adapted:
        yield _merged(case, strategy, model, captions, moved)
    del model
    case.captioner = _reloaded(case.captioner, strategy, plan, fresh, folder)
    yield compared("reloaded", case, captions, moved, case.outputs(captions, size))


def _merged(case: ParityCase, strategy: Strategy, model: nn.Module, captions: list[str], moved: Outputs) -> Finding:
    try:
        strategy.merge(model)
    except Refused as refusal:
        return Finding("merged", "refused", first=str(refusal))
    return compared("merged", case, captions, moved, case.outputs(captions, len(captions)))


def _reloaded(
    captioner: Captioner, strategy: Strategy, plan: Plan, fresh: Callable[[], Captioner], folder: Path
) -> Captioner:
    del captioner.model
    memory.release()  # two large ones may not fit
    again = fresh()
    strategy.load(strategy.attach(again, plan), plan, folder)
    return again


@torch.no_grad()
def move_weights(model: nn.Module) -> None:
    """What a fit would do to the trainable weights, without one. Seeded: the same on every call."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            scale = parameter.std().item() if parameter.numel() > 1 and parameter.any() else 1.0
            parameter.add_(NOISE * scale * noise)


def compared(check: str, case: ParityCase, captions: Sequence[str], one: Outputs, other: Outputs) -> Finding:
    """Two ways to compute the same; `captions` are those whose logits both hold."""
    difference = _largest(one.logits, other.logits)
    largest = max(row.abs().max().item() for row in one.logits)
    rounding = difference <= TOLERANCE[_dtype(case.captioner.model)] * largest
    places = [place for place, pair in enumerate(zip(one.captions, other.captions, strict=True)) if pair[0] != pair[1]]
    if not places:
        return Finding(check, "same" if rounding else "differs", difference)
    sample = places[0]
    token, margin = _first(case, captions[sample], other.captions[sample], one.logits[sample])
    tie = rounding and margin is not None and margin <= 2 * difference
    words = _parting(sample, token, one.captions[sample], other.captions[sample])
    return Finding(check, "near tie" if tie else "differs", difference, words)


def check_engine(case: ParityCase, own: Outputs, captions: Sequence[str]) -> Finding:
    """Another engine's captions of the same examples; its logits are not known.

    A tie is near when the captioner itself could have been turned by what counts as rounding.
    """
    pairs = list(zip(own.captions, captions, strict=True))
    places = [place for place, (one, other) in enumerate(pairs) if one != other]
    if not places:
        return Finding("engine", "same")
    rounding = TOLERANCE[_dtype(case.captioner.model)]
    parted = [(place, *_first(case, *pairs[place], own.logits[place])) for place in places]
    far = [
        (place, token)
        for place, token, margin in parted
        if margin is None or margin > rounding * own.logits[place].abs().max().item()
    ]
    sample, token = far[0] if far else parted[0][:2]
    return Finding("engine", "differs" if far else "near tie", None, _parting(sample, token, *pairs[sample]))


def _first(case: ParityCase, caption: str, other: str, logits: Tensor) -> tuple[int, float | None]:
    """(number of the first token that differs, how much more the caption's token had than the other's)."""
    ids, others = case.answer(caption), case.answer(other)
    pairs = list(zip(ids, others, strict=False))
    place = next((place for place, (a, b) in enumerate(pairs) if a != b), None)
    if place is None:
        return len(pairs) + 1, None
    left, right = pairs[place]
    return place + 1, (logits[place, left] - logits[place, right]).item()


def _parting(sample: int, token: int, one: str, other: str) -> str:
    """Where two captions part, a few letters of each."""
    pairs = zip(one, other, strict=False)
    start = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
    return f"sample {sample + 1}, token {token}: {one[start : start + 24]!r} became {other[start : start + 24]!r}"


def _largest(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    return max((a - b).abs().max().item() for a, b in zip(one, other, strict=True))


def _dtype(model: nn.Module) -> torch.dtype:
    """The coarsest of the dtypes that compute."""
    found = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    return max(found, key=lambda dtype: torch.finfo(dtype).eps)
