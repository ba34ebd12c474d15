"""Modality names shown to people and put into prompts, by UMLS concept and by DICOM code."""

from __future__ import annotations

from collections.abc import Sequence

MODALITY_OF_CUI = {
    "C0040405": "CT",
    "C1306645": "X-ray",
    "C0024485": "MRI",
    "C0041618": "Ultrasound",
    "C0002978": "Angiography",
    "C0032743": "PET",
    "C0920367": "OCT",
}
"""ROCOv2's and ImageCLEF's modality concepts. Mammograms and fluoroscopy stills are X-rays there."""

COMBINED_OF_CUI = {"C1699633": "PET/CT", "C3472245": "SPECT/CT"}
"""Two modalities in one picture: in automatic concept fields only, beside a single one."""

OTHER = "other"

CUI_OF_MODALITY = {name: cui for cui, name in MODALITY_OF_CUI.items()}

MODALITY_OF_DICOM = {
    "CT": "CT",
    "MR": "MRI",
    "US": "Ultrasound",
    "IVUS": "Ultrasound",
    "XA": "Angiography",
    "PT": "PET",
    **dict.fromkeys(("CR", "DX", "RG", "MG", "RF", "PX", "IO"), "X-ray"),
}
"""DICOM's codes (0008,0060). Others, such as nuclear medicine, have no name among ROCOv2's classes."""


def modality_of_concepts(manual: Sequence[str], automatic: Sequence[str]) -> str:
    """The first modality among the manual concepts; without any of these, a combined, then a single automatic one."""
    tables = ((manual, MODALITY_OF_CUI),) if manual else ((automatic, COMBINED_OF_CUI), (automatic, MODALITY_OF_CUI))
    return next((names[cui] for cuis, names in tables for cui in cuis if cui in names), OTHER)
