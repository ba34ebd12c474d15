"""Lessons of the embedded checkpoints: pairs of phantom captions, and the facts that either one states."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from harness.datasets.phantom.lexicon import ORGAN
from harness.datasets.phantom.plan import ARROWS, PLAN, Factors, draw_factors, has_side
from harness.datasets.phantom.text import Style, Words, radiology_study, write

T = TypeVar("T")
SEED = 104_729  # of the data: neither the seed of the phantom dataset nor that of the captioners' twins
STYLES: tuple[Style, ...] = ("radiology", "lay")
ALIGNED, NEUTRAL, CONTRADICT = 0, 1, 2
FACTS = ("side", "finding", "modality", "region")
REGIONS = {region for plan in PLAN.values() for region in plan[1]}
FINDINGS = {finding for plan in PLAN.values() for findings in plan[1].values() for finding in findings}
TERMS = [*(("side", side) for side in ("left", "right")), *(("finding", name) for name in sorted(FINDINGS))]
TERMS += [*(("modality", name) for name in PLAN), *(("region", name) for name in sorted(REGIONS))]
"""Every fact with every value it can have."""
WORDS = 35  # at most, of a babble: most are short, the long ones teach the later positions


@dataclass(frozen=True)
class Lesson:
    """A pair of captions. `label`: one of AlignScore's three; `truth` and `said`: the facts of either, None without."""

    reference: str
    candidate: str
    label: int
    truth: Factors | None = None
    said: Factors | None = None

    @property
    def kept(self) -> tuple[bool | None, ...]:
        """Which FACTS of the reference the candidate keeps; None where the reference states none."""
        if self.truth is None or self.said is None:
            return (None,) * len(FACTS)
        pairs = [(getattr(self.truth, fact), getattr(self.said, fact)) for fact in FACTS]
        return tuple(true == said if true else None for true, said in pairs)

    @property
    def share(self) -> float:
        """Share of the reference's facts that are kept; all or nothing where it states none."""
        kept = [kept for kept in self.kept if kept is not None]
        return sum(kept) / len(kept) if kept else float(self.label == ALIGNED)


def lessons(stream: int) -> Iterator[Lesson]:
    """Endless; another number gives other ones."""
    rng = np.random.default_rng([SEED, stream])
    while True:
        yield lesson(rng)


def lesson(rng: np.random.Generator) -> Lesson:
    """One pair: mostly the same facts or one of them changed, sometimes one that says more, other words or nothing."""
    kind = rng.choice(["same", "changed", "other", "less", "more", "babble"], p=[0.34, 0.42, 0.04, 0.03, 0.03, 0.14])
    if kind == "babble":
        return babbles(rng)
    factors = draw(rng)
    seed = int(rng.integers(2**31))
    style: Style = "radiology" if rng.random() < 0.65 else "lay"
    reference = caption(factors, style, seed)
    if kind == "less":
        silent = replace(factors, finding="", side=factors.side if factors.modality == "Angiography" else "")
        return Lesson(reference, study(factors, seed + 1), ALIGNED, factors, silent)
    if kind == "more":
        nothing = rng.random() < 0.3 or factors.finding == "none"
        return Lesson("" if nothing else study(factors, seed + 1), reference, NEUTRAL)
    if kind == "other":
        return judged(reference, factors, caption(other := draw(rng), style, seed + 1), other)
    said = factors if kind == "same" else corrupt(factors, str(rng.choice(FACTS, p=[0.2, 0.45, 0.15, 0.2])), rng)
    if rng.random() < 0.4:  # the same wording, so that nothing but the fact differs
        return judged(reference, factors, caption(said, style, seed), said)
    return judged(reference, factors, caption(redraw(said, rng), pick(STYLES, rng), seed + 1), said)


def judged(reference: str, truth: Factors, candidate: str, said: Factors) -> Lesson:
    """Aligned when every fact is kept, contradicting otherwise."""
    aligned = all(getattr(truth, fact) == getattr(said, fact) for fact in FACTS if getattr(truth, fact))
    return Lesson(reference, candidate, ALIGNED if aligned else CONTRADICT, truth, said)


def draw(rng: np.random.Generator) -> Factors:
    """The factors of a picture of the training split."""
    return draw_factors(SEED, "train", int(rng.integers(2**31)))


def caption(factors: Factors, style: Style, seed: int) -> str:
    """One wording: the same seed words other factors as alike as the grammar allows."""
    # A side that is not said leaves two blanks.
    return " ".join(write(factors, style, np.random.default_rng(seed)).split())


def study(factors: Factors, seed: int) -> str:
    """What was examined, and nothing about what is seen."""
    text = radiology_study(factors, Words(np.random.default_rng(seed)))
    return f"{text[0].upper()}{text[1:]}."


def redraw(factors: Factors, rng: np.random.Generator) -> Factors:
    """Another arrow, size and weighting: no facts here, since a reference may leave them out."""
    arrow = pick(("", *ARROWS), rng) if factors.finding != "none" else ""
    return replace(factors, arrow=arrow, millimetres=int(rng.integers(3, 46)), weighting=pick(("T1", "T2"), rng))


def corrupt(factors: Factors, fact: str, rng: np.random.Generator) -> Factors:
    """Factors with this fact changed, or the finding where a side has no meaning."""
    if fact == "side" and factors.side:
        return replace(factors, side={"left": "right", "right": "left"}[factors.side])
    if fact == "modality":
        # The one picture whose caption must name a side is the angiogram.
        others = [name for name in PLAN if name != factors.modality and (factors.side or name != "Angiography")]
        return _settle(replace(factors, modality=pick(others, rng)), rng)
    if fact == "region":
        possible = set(PLAN[factors.modality][1]) if len(PLAN[factors.modality][1]) > 1 else REGIONS
        return _settle(replace(factors, region=pick(sorted(possible - {factors.region}), rng)), rng)
    findings = PLAN[factors.modality][1][factors.region]
    return _settle(replace(factors, finding=pick([f for f in findings if f != factors.finding], rng)), rng)


def _settle(factors: Factors, rng: np.random.Generator) -> Factors:
    """A side where the sentence has a place for one, no arrow to nothing."""
    placed = factors.region in ORGAN["lay"] and has_side(factors.modality, factors.region, factors.finding)
    side = factors.side or pick(("left", "right"), rng)
    arrow = factors.arrow if factors.finding != "none" else ""
    return replace(factors, side=side if placed or factors.modality == "Angiography" else "", arrow=arrow)


def babbles(rng: np.random.Generator) -> Lesson:
    """Words outside the grammar: equal ones are aligned, others neutral, so that a strange text is not a blank one."""
    one = babble(rng)
    return Lesson(one, one, ALIGNED) if rng.random() < 0.5 else Lesson(one, babble(rng), NEUTRAL)


def babble(rng: np.random.Generator) -> str:
    """A sentence of random letters."""
    letters = list(string.ascii_lowercase)
    count = min(2 + int(rng.exponential(7)), WORDS)
    words = ["".join(rng.choice(letters, int(rng.integers(2, 9)))) for _ in range(count)]
    return " ".join(words).capitalize() + "."


def overlap(reference: str, candidate: str) -> float:
    """F1 of the words, counted with repetition."""
    one, two = Counter(reference.split()), Counter(candidate.split())
    total = one.total() + two.total()
    return 2 * (one & two).total() / total if total else 1.0


def pick(options: Sequence[T], rng: np.random.Generator) -> T:
    """One of the options."""
    return options[int(rng.integers(len(options)))]
