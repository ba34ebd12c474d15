"""Captions of the phantom pictures, in the language of radiology or in plain words. Both state the same facts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from harness.datasets.phantom.lexicon import FINDING, MODALITY, ORGAN, REGION, UNPAIRED_ORGAN
from harness.datasets.phantom.plan import Factors

Style = Literal["radiology", "lay"]

SIZED = frozenset({"mass", "cyst", "nodule", "aneurysm", "stone"})
BARE = frozenset(
    {"hydronephrosis", "edema", "consolidation", "pneumonia", "cardiomegaly", "escaped wind"}
)  # no article
SIZELESS = frozenset({"cardiomegaly", "gallstone", "stone"})  # their size in the picture does not follow millimetres
LARGE = 20  # millimetres from which on a finding is called large


class Words:
    """Random choices of wording."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def pick(self, options: Sequence[str]) -> str:
        """One of the options."""
        return options[int(self.rng.integers(len(options)))]

    def chance(self, share: float) -> bool:
        """True in this share of the cases."""
        return bool(self.rng.random() < share)


def write(factors: Factors, style: Style, rng: np.random.Generator) -> str:
    """One sentence that states modality, region, finding and, where they have a meaning, side and arrow."""
    words = Words(rng)
    text = radiology(factors, words) if style == "radiology" else lay(factors, words)
    return text[0].upper() + text[1:] + ("." if words.chance(0.85) else "")


def radiology(factors: Factors, words: Words) -> str:
    """As in "Axial thorax CT demonstrating a 33 mm nodule in the left lung"."""
    study = radiology_study(factors, words)
    if factors.finding == "none":
        tails = [f"{study} without abnormality", f"{study} showing no abnormality", f"normal {study}"]
        return words.pick([*tails, f"no abnormality on {study}"])
    finding = finding_phrase(factors, "radiology", words)
    arrow = f" ({factors.arrow} arrow)" if factors.arrow else ""
    if words.chance(0.3):
        return f"{finding}{arrow} on {study}"
    verb = words.pick(["showing", "shows", "demonstrating", "reveals", "with"])
    return f"{study} {verb} {finding}{arrow}"


def radiology_study(factors: Factors, words: Words) -> str:
    """What was examined, and how."""
    modality = words.pick(MODALITY["radiology"][factors.modality])
    region = words.pick(REGION["radiology"][factors.region])
    if factors.modality == "MRI" and words.chance(0.6):
        modality = f"{factors.weighting}-weighted {modality}"
    if factors.modality == "Angiography":
        study = f"{modality} of the {factors.side} {region}"
    else:
        study = words.pick([f"{modality} of the {region}", f"{region} {modality}"])
    planes = {"CT": "axial", "MRI": "sagittal" if factors.region == "spine" else "axial"}
    plane = planes.get(factors.modality)
    return f"{plane} {study}" if plane and words.chance(0.4) else study


def lay(factors: Factors, words: Words) -> str:
    """As in "this slice picture of the upper body shows a small round spot inside the breathing organ on the left"."""
    modality, region = words.pick(MODALITY["lay"][factors.modality]), words.pick(REGION["lay"][factors.region])
    if factors.modality == "Angiography":
        region = f"{factors.side} {region}"
    if factors.finding == "none":
        good = words.pick(FINDING["lay"]["none"])
        tails = [f"this {modality} of the {region} shows {good}", f"{good} in this {modality} of the {region}"]
        return words.pick([*tails, f"{region} with {good}, as seen in a {modality}"])
    finding = finding_phrase(factors, "lay", words)
    arrow = f" ({factors.arrow} pointer)" if factors.arrow else ""
    verb = words.pick(["shows", "lets us see", "has"])
    return words.pick(
        [
            f"this {modality} of the {region} {verb} {finding}{arrow}",
            f"{finding}{arrow} in this {modality} of the {region}",
            f"in the {region} there is {finding}{arrow}, as seen in this {modality}",
        ]
    )


def finding_phrase(factors: Factors, style: Style, words: Words) -> str:
    """Article, size, name and place of the finding."""
    name = words.pick(FINDING[style][factors.finding])
    size = size_phrase(factors, style, words)
    if style == "radiology" and factors.finding in ("effusion", "pneumothorax"):
        side = words.pick([f"{factors.side}-sided", factors.side])
        name, place = f"{side} {name}", ""
    else:
        place = place_phrase(factors, style, words)
    phrase = f"{size}{name}"
    if name in BARE and not size:
        return phrase + place
    article = "an" if phrase.startswith(("a", "e", "i", "o", "u", "8 ", "11 ")) else "a"
    return f"{article} {phrase}{place}"


def size_phrase(factors: Factors, style: Style, words: Words) -> str:
    """Millimetres, an adjective or nothing. Always draws the same numbers, whatever the finding."""
    exact, said = words.chance(0.25), words.chance(0.5)
    if exact and factors.finding in SIZED:
        return f"{factors.millimetres} mm " if style == "radiology" else f"{factors.millimetres} mm wide "
    if not said or factors.finding in SIZELESS:
        return ""
    small, large = ("small", "large") if style == "radiology" else ("little", "big")
    return f"{large if factors.millimetres >= LARGE else small} "


def place_phrase(factors: Factors, style: Style, words: Words) -> str:
    """The organ and its side; empty where the region says it all."""
    if (factors.modality, factors.region, factors.finding) == ("CT", "abdomen", "mass"):
        return f" {'in' if style == 'radiology' else 'inside'} the {UNPAIRED_ORGAN[style]}"
    if not factors.side or factors.modality == "Angiography":
        return ""
    organ = words.pick(ORGAN[style][factors.region])
    if style == "radiology":
        return f" in the {factors.side} {organ}"
    return words.pick([f" inside the {factors.side} {organ}", f" inside the {organ} on the {factors.side}"])
