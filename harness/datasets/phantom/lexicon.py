"""The words of both caption styles: term -> synonyms. The writers and the reader of captions share them.

No lay word is a term of radiology or anatomy, so that a concept extractor finds nothing in a lay caption.
"""

from __future__ import annotations

Lexicon = dict[str, tuple[str, ...]]

MODALITY: dict[str, Lexicon] = {
    "radiology": {
        "CT": ("CT", "CT scan", "computed tomography"),
        "X-ray": ("X-ray", "radiograph", "plain radiograph"),
        "MRI": ("MRI", "MR image", "magnetic resonance imaging"),
        "Ultrasound": ("ultrasound", "ultrasonography", "US image"),
        "Angiography": ("angiography", "digital subtraction angiogram", "angiogram"),
        "PET": ("PET", "FDG PET scan"),
    },
    "lay": {
        "CT": ("slice picture", "ring camera picture"),
        "X-ray": ("shadow picture", "see-through picture"),
        "MRI": ("magnet picture", "magnet camera picture"),
        "Ultrasound": ("sound picture", "sound wave picture"),
        "Angiography": ("dye picture", "ink flow picture"),
        "PET": ("glow picture", "sugar glow picture"),
    },
}

REGION: dict[str, Lexicon] = {
    "radiology": {
        "chest": ("chest", "thorax"),
        "abdomen": ("abdomen",),
        "brain": ("brain", "head"),
        "leg": ("lower leg", "tibia"),
        "arm": ("forearm",),
        "spine": ("spine", "lumbar spine"),
        "liver": ("liver",),
        "kidney": ("kidney",),
        "gallbladder": ("gallbladder",),
        "carotid": ("carotid artery",),
    },
    "lay": {
        "chest": ("upper body",),
        "abdomen": ("middle body", "belt area"),
        "brain": ("thinking organ",),
        "leg": ("walking part",),
        "arm": ("grasping part",),
        "spine": ("body pillar", "stack of body blocks"),
        "liver": ("cleaning organ",),
        "kidney": ("water filter",),
        "gallbladder": ("juice pouch",),
        "carotid": ("red pipe",),
    },
}

FINDING: dict[str, Lexicon] = {
    "radiology": {
        "effusion": ("pleural effusion",),
        "pneumothorax": ("pneumothorax",),
        "nodule": ("nodule", "pulmonary nodule"),
        "pneumonia": ("consolidation", "pneumonia"),
        "mass": ("mass", "tumor"),
        "cyst": ("cyst", "cystic lesion"),
        "hydronephrosis": ("hydronephrosis",),
        "stone": ("stone", "calculus"),
        "gallstone": ("gallstone", "gallstone with acoustic shadowing"),
        "hemorrhage": ("hemorrhage",),
        "infarct": ("infarct",),
        "edema": ("edema",),
        "fracture": ("fracture",),
        "cardiomegaly": ("cardiomegaly", "enlarged heart"),
        "aneurysm": ("aneurysm",),
        "stenosis": ("stenosis",),
        "metastasis": ("metastasis",),
        "none": ("no abnormality", "without abnormality", "normal"),
    },
    "lay": {
        "effusion": ("pool of water", "trapped puddle"),
        "pneumothorax": ("escaped wind",),
        "nodule": ("round spot", "round dot"),
        "pneumonia": ("cloudy patch", "foggy patch"),
        "mass": ("odd clump",),
        "cyst": ("water bubble",),
        "hydronephrosis": ("overfull basin",),
        "stone": ("pebble",),
        "gallstone": ("hard marble",),
        "hemorrhage": ("red leak",),
        "infarct": ("starved zone",),
        "edema": ("soggy zone",),
        "fracture": ("snapped place", "crack"),
        "cardiomegaly": ("oversized pump",),
        "aneurysm": ("ballooned bit",),
        "stenosis": ("pinched bit",),
        "metastasis": ("stray seed",),
        "none": ("nothing odd", "all well"),
    },
}

ORGAN: dict[str, Lexicon] = {
    "radiology": {"chest": ("lung",), "abdomen": ("kidney",), "brain": ("cerebral hemisphere",)},
    "lay": {"chest": ("breathing organ",), "abdomen": ("water filter",), "brain": ("half",)},
}
"""The paired organ of a region, that a side is said of."""

UNPAIRED_ORGAN = {"radiology": "liver", "lay": "cleaning organ"}
"""Where the mass of an abdominal CT is."""
