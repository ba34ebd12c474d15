"""Reads the facts back from a phantom caption, of either style or a mixture: an exact score on known factors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from harness.datasets.phantom.lexicon import FINDING, MODALITY, REGION
from harness.datasets.phantom.plan import PLAN


def facts(caption: str) -> dict[str, str]:
    """modality, region, finding ("none" where the caption says so) and side; "" for what the caption does not state.

    The first mention counts. Regions and findings that the modality's pictures cannot have are not read, since a
    caption also names organs: "abdomen CT with a mass in the liver" is a picture of the abdomen.
    """
    text = re.sub(r"\s*-\s*", "-", " ".join(caption.lower().split()))
    modality = first_term(text, "modality", tuple(PLAN))
    plans = [PLAN[modality]] if modality else list(PLAN.values())
    regions = {region: findings for _, plan in plans for region, findings in plan.items()}
    findings = {finding for names in regions.values() for finding in names}
    return {
        "modality": modality,
        "region": first_term(text, "region", tuple(regions)),
        "finding": first_term(text, "finding", tuple(sorted(findings))),
        "side": next(iter(re.findall(r"\b(left|right)\b", text)), ""),
    }


def first_term(text: str, kind: str, terms: tuple[str, ...]) -> str:
    """The term whose synonym comes first in the text, "" without one."""
    pattern, owner = synonyms(kind, terms)
    match = pattern.search(text)
    return owner[match.group()] if match else ""


@lru_cache
def synonyms(kind: str, terms: Iterable[str]) -> tuple[re.Pattern[str], dict[str, str]]:
    """One pattern over all synonyms, the longest first, and the term that each belongs to."""
    styles = {"modality": MODALITY, "region": REGION, "finding": FINDING}[kind]
    owner = {word.lower(): term for lexicon in styles.values() for term in terms for word in lexicon[term]}
    longest_first = sorted(owner, key=len, reverse=True)
    return re.compile(r"\b(?:" + "|".join(map(re.escape, longest_first)) + r")\b"), owner
