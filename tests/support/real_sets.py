"""ROCOv2 and ImageCLEF as their yaml has them, on a folder."""

from harness.datasets.imageclef import ImageClef
from harness.datasets.rocov2 import RocoV2

USUAL = {"ids": None, "limit": None, "stratify": "modality", "seed": 0, "clean": "strip", "check": "listed"}
USUAL |= {"cache": None, "recheck": False}


def rocov2(root, **changes):
    return RocoV2("rocov2", root and str(root), **{"hub": None, **USUAL, **changes})


def imageclef(root, **changes):
    return ImageClef("imageclef", root and str(root), **{**USUAL, **changes})


def ids(split):
    return [sample.id for sample in split.samples]


def ledger(split):
    return {row.id: row.reason for row in split.rejected}
