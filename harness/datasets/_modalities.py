"""Modality names shown to people and put into prompts, by UMLS concept and by DICOM code."""

from __future__ import annotations

MODALITY_OF_CUI = {
    "C0040405": "CT",
    "C1306645": "X-ray",
    "C0024485": "MRI",
    "C0041618": "Ultrasound",
    "C0002978": "Angiography",
    "C0032743": "PET",
}
"""ROCOv2's modality concepts. Mammograms and fluoroscopy stills are X-rays there."""

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
