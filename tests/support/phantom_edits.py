"""Held-out phantom captions with one fact changed in the text: what the embedded AlignScore and BLEURT must notice.

The captions come from another seed than any training. They are changed by replacing words, not by the code that
changes facts for the training.
"""

import random
import re

from harness.contracts import Metric, Pair
from harness.datasets.phantom import Phantom
from harness.datasets.phantom.lexicon import FINDING, MODALITY, REGION
from harness.datasets.phantom.plan import PLAN

KINDS = ("side", "finding", "modality", "region")
STYLES = ("radiology", "lay")
COUNT = 150


def triples(kind: str) -> list[tuple[str, str, str]]:
    """(reference, the same facts in the other style, the reference with another fact of this kind)."""
    rng = random.Random(kind)
    one, two = (
        Phantom("phantom", train=1, valid=1, test=600, size=64, seed=31_337, style=style, limit=None)
        .load("test")
        .samples
        for style in STYLES
    )
    found = []
    for samples in zip(one, two, strict=True):
        turn = rng.randrange(2)
        reference, other = samples[turn].caption, samples[1 - turn].caption
        changed = edit(reference, kind, samples[0].factors, STYLES[turn], rng)
        if changed:
            found.append((reference, other, changed))
    return found[:COUNT]


def edit(text: str, kind: str, factors: dict[str, str], style: str, rng: random.Random) -> str | None:
    """The text with one word of it replaced, None where it has no such word or there is no other."""
    if kind == "side":
        swapped = {"left": "right", "right": "left"}
        changed = re.sub(r"left|right", lambda match: swapped[match.group().lower()], text, flags=re.IGNORECASE)
        return changed if factors["side"] else None
    if factors[kind] == "none":
        return None
    possible = {"finding": PLAN[factors["modality"]][1][factors["region"]], "modality": tuple(PLAN)}
    regions = tuple(REGION[style])
    others = [term for term in possible.get(kind, regions) if term not in (factors[kind], "none")]
    lexicon = {"finding": FINDING, "modality": MODALITY, "region": REGION}[kind][style]
    words = sorted(lexicon[factors[kind]], key=len, reverse=True)
    match = re.search("|".join(rf"\b{re.escape(word)}\b" for word in words), text, re.IGNORECASE)
    if match is None or not others:
        return None
    return text[: match.start()] + rng.choice(lexicon[rng.choice(others)]) + text[match.end() :]


def shares(metric: Metric, kind: str) -> tuple[float, float]:
    """How often the reference itself, and its paraphrase, score higher than the changed text."""
    found = triples(kind)
    assert len(found) == COUNT
    columns = [
        [score.values["score"] for score in metric.score([Pair(row[0], row[place]) for row in found], [])]
        for place in range(3)
    ]
    same, paraphrase, changed = columns
    wins = [sum(a > b for a, b in zip(column, changed, strict=True)) / COUNT for column in (same, paraphrase)]
    return wins[0], wins[1]
