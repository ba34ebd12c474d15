"""What a phantom picture shows: the generating factors, drawn before any pixel or word."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.contracts import SPLITS
from harness.imaging.modalities import CUI_OF_MODALITY

HEAD = ("hemorrhage", "infarct", "mass", "edema", "none")
PLAN: dict[str, tuple[float, dict[str, tuple[str, ...]]]] = {
    "CT": (
        0.35,
        {
            "chest": ("effusion", "pneumothorax", "nodule", "pneumonia", "none"),
            "abdomen": ("mass", "cyst", "hydronephrosis", "stone", "none"),
            "brain": HEAD,
        },
    ),
    "X-ray": (
        0.27,
        {
            "chest": ("effusion", "pneumothorax", "pneumonia", "nodule", "cardiomegaly", "none"),
            "leg": ("fracture", "none"),
            "arm": ("fracture", "none"),
        },
    ),
    "MRI": (0.16, {"brain": HEAD, "spine": ("fracture", "mass", "none")}),
    "Ultrasound": (
        0.15,
        {
            "liver": ("cyst", "mass", "none"),
            "kidney": ("cyst", "hydronephrosis", "stone", "none"),
            "gallbladder": ("gallstone", "none"),
        },
    ),
    "Angiography": (0.05, {"carotid": ("aneurysm", "stenosis", "none")}),
    "PET": (0.02, {"brain": ("metastasis", "none")}),
}
"""modality -> (share, region -> findings). The shares are roughly those of ROCOv2."""

CUIS = {
    **CUI_OF_MODALITY,
    "chest": "C0817096",
    "abdomen": "C0000726",
    "brain": "C0006104",
    "spine": "C0037949",
    "leg": "C0023216",
    "arm": "C1140618",
    "liver": "C0023884",
    "kidney": "C0022646",
    "gallbladder": "C0016976",
    "carotid": "C0007272",
    "mass": "C0027651",
    "cyst": "C0205207",
    "nodule": "C0028259",
    "effusion": "C0032227",
    "pneumothorax": "C0032326",
    "pneumonia": "C0032285",
    "hemorrhage": "C0019080",
    "infarct": "C0021308",
    "edema": "C0013604",
    "hydronephrosis": "C0020295",
    "stone": "C0022650",
    "gallstone": "C0008350",
    "aneurysm": "C0002940",
    "stenosis": "C1261287",
    "metastasis": "C2939419",
    "fracture": "C0016658",
    "cardiomegaly": "C0018800",
}
"""Factor -> UMLS concept, as in ROCOv2's cui_mapping.csv where it has one."""

UNPAIRED = frozenset({("X-ray", "chest", "cardiomegaly"), ("CT", "abdomen", "mass")})
"""Findings of the heart and the liver, in regions whose other findings have a side."""

ARROWS = {"white": (255, 255, 255), "red": (230, 30, 30), "yellow": (250, 220, 40), "blue": (60, 110, 250)}
ARROW_SHARE = 0.25  # of the pictures with a finding; ROCO v1 names an arrow in 22.5 % of its captions

STREAMS = {"factors": 0, "pixels": 1, "words": 2}


@dataclass(frozen=True)
class Factors:
    """The truth about one picture. `side` and `arrow` are "" where they have no meaning."""

    modality: str
    region: str
    finding: str
    side: str
    arrow: str
    millimetres: int
    weighting: str

    @property
    def concepts(self) -> tuple[str, ...]:
        """UMLS concepts: modality, region and, if there is one, finding."""
        keys = (self.modality, self.region, self.finding)
        return tuple(CUIS[key] for key in keys if key != "none")

    def facts(self) -> dict[str, str]:
        """The factors that a caption is scored on."""
        names = ("modality", "region", "finding", "side", "arrow")
        return {name: getattr(self, name) for name in names}


def generator(seed: int, split: str, index: int, stream: str) -> np.random.Generator:
    """Random numbers of one sample: factors, pixels and words never share any, so that one can change alone."""
    return np.random.default_rng([seed, SPLITS.index(split), index, STREAMS[stream]])


def has_side(modality: str, region: str, finding: str) -> bool:
    """Whether left or right can be seen: the vessel of an angiogram, and findings in paired organs."""
    if modality == "Angiography":
        return True
    if finding == "none" or (modality, region, finding) in UNPAIRED:
        return False
    return region in ("chest", "brain") or (modality, region) == ("CT", "abdomen")


def draw_factors(seed: int, split: str, index: int) -> Factors:
    """The factors of one sample: a function of its arguments and nothing else."""
    rng = generator(seed, split, index, "factors")
    modality = str(rng.choice(list(PLAN), p=[share for share, _ in PLAN.values()]))
    region = str(rng.choice(list(PLAN[modality][1])))
    finding = str(rng.choice(PLAN[modality][1][region]))
    side = str(rng.choice(["left", "right"]))
    large = rng.random() < 0.5
    millimetres = int(rng.integers(20, 46) if large else rng.integers(6, 16))
    if finding in ("stone", "gallstone"):
        millimetres = int(rng.integers(3, 9))
    weighting = str(rng.choice(["T1", "T2"]))
    arrow = str(rng.choice(list(ARROWS))) if rng.random() < ARROW_SHARE and finding != "none" else ""
    if not has_side(modality, region, finding):
        side = ""
    return Factors(modality, region, finding, side, arrow, millimetres, weighting)
