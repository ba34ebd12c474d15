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
