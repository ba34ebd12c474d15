"""UMLS concept F1: the concept table, what MedCAT finds of it, the set formula."""

import collections
import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.contracts import RequestError
from harness.datasets.phantom import Phantom
from harness.metrics import _medcat
from harness.metrics.umls_f1 import EMBEDDED, MEDCON66, UmlsF1
from tests.support.metric_data import PHANTOM, REAL, ROOT, SAMPLES, build, numbers, pair


def table() -> dict[str, list[str]]:
    names = collections.defaultdict(list)
    with EMBEDDED.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            names[row["cui"]] += row["name"].split("|")
    return names


def test_concept_table_is_well_formed():
    owner = {}
    with EMBEDDED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["name_status"] for row in rows} == {"P", "A"}
    for row in rows:
        assert re.fullmatch(r"C\d{7}", row["cui"])
        assert re.fullmatch(r"T\d{3}", row["type_ids"])
        for name in row["name"].split("|"):
            key = tuple(re.findall(r"\w+", name.lower()))
            assert key not in owner, f"{name}: also a name of {owner.get(key)}"
            owner[key] = row["cui"]
    assert 120 <= len(table()) <= 220


def test_every_name_of_the_table_is_found(metrics):
    """As a word of its own; names below four letters in capitals only."""
    for cui, names in table().items():
        for name in names:
            word = name.upper() if len(name) < 4 else name
            assert metrics["umls_f1"].concepts(f"There is {word} here.") == {cui}, name


def test_modality_concepts_are_rocos(metrics):
    """The single modalities of ROCOv2 and ImageCLEF."""
    words = {
        "C0040405": "CT scan",
        "C1306645": "X-ray",
        "C0024485": "MRI",
        "C0041618": "ultrasound",
        "C0002978": "angiogram",
        "C0032743": "PET",
        "C0920367": "optical coherence tomography",
    }
    assert {cui: metrics["umls_f1"].concepts(word) for cui, word in words.items()} == {cui: {cui} for cui in words}


@pytest.mark.parametrize("row", REAL, ids=[row["id"] for row in REAL])
def test_concepts_of_real_captions(metrics, row):
    assert metrics["umls_f1"].concepts(row["caption"]) == set(row["concepts"].split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a kidney stone", {"C0022650"}),  # the longest name, no kidney inside it
        ("kidney stone in the kidney", {"C0022650", "C0022646"}),
        ("small bowel obstruction", {"C0021843"}),  # of names that overlap only the longest: no small bowel
        ("PET/CT", {"C1699633"}),
        ("postero-anterior, posteroanterior", {"C1996865"}),
        ("haemorrhage and hemorrhages", {"C0019080"}),
        ("us and our ct", set()),  # short names in capitals only
        ("US and CT", {"C0041618", "C0040405"}),
        ("left-sided", set()),
        ("no fracture", {"C0016658"}),
        ("   ", set()),
    ],
)
def test_how_names_match(metrics, text, expected):
    assert metrics["umls_f1"].concepts(text) == expected


# Where a caption's word is a UMLS concept of its own, finer than the factor of the phantom: (factor's concept, word's).
FINER = {
    "lower leg": ("C0023216", "C1140621"),
    "tibia": ("C0023216", "C0040184"),
    "forearm": ("C1140618", "C0016536"),
    "lumbar spine": ("C0037949", "C0024091"),
    "head": ("C0006104", "C0018670"),
    "pulmonary nodule": ("C0028259", "C0034079"),
    "consolidation": ("C0032285", "C0521530"),
    "mass": ("C0027651", "C0577559"),
    "cyst": ("C0205207", "C0010709"),
    "stone": ("C0022650", "C0006736"),
    "calculus": ("C0022650", "C0006736"),
    "metastasis": ("C2939419", "C0027627"),
}
# What a phantom caption names besides its factors.
BESIDES = {
    "axial": "C0205131",
    "sagittal": "C0205129",
    "lung": "C0024109",
    "kidney": "C0022646",
    "liver": "C0023884",
    "cerebral hemisphere": "C0228174",
    "cystic lesion": "C0221198",
}


def named(sample) -> set[str]:
    """The concepts that a phantom caption names, from its factors and its words, without MedCAT."""

    def says(word: str) -> bool:
        return re.search(rf"\b{word}\b", sample.caption.lower()) is not None

    concepts = set(sample.concepts)
    for coarse, finer in (FINER[word] for word in FINER if says(word)):
        concepts = concepts - {coarse} | {finer}
    return concepts | {cui for word, cui in BESIDES.items() if says(word)}


def test_concepts_of_phantom_captions(metrics):
    found = truth = common = 0
    for sample in (*SAMPLES, *PHANTOM.load("train").samples):
        concepts, expected = metrics["umls_f1"].concepts(sample.caption), named(sample)
        assert sample.concepts[0] in concepts, f"modality not found: {sample.caption}"
        found, truth, common = found + len(concepts), truth + len(expected), common + len(concepts & expected)
    assert common / found >= 0.95
    assert common / truth >= 0.95


def test_lay_captions_name_almost_nothing(metrics):
    lay = Phantom("phantom", train=1, valid=1, test=100, size=64, seed=2025, style="lay", limit=None)
    counts = [len(metrics["umls_f1"].concepts(sample.caption)) for sample in lay.load("test").samples]
    assert np.mean(counts) < 0.1


def test_set_formula_by_hand(metrics):
    scores = metrics["umls_f1"].score(
        [
            pair("CT of the chest: pneumothorax", "Chest X-ray with pneumothorax, fracture"),  # 2 common of 3 and 4
            pair("CT, CT and CT scan", "CT"),  # a set: repetition does not count
            pair("nothing named", "nothing either"),
            pair("CT", "nothing named"),
        ],
        [],
    )
    expected = [[3, 4, 2 / 4, 2 / 3, 2 * 2 / 7], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
    np.testing.assert_allclose(numbers(scores), expected)


@pytest.fixture(scope="module")
def cat():
    """The embedded extractor, read once."""
    return _medcat.build(EMBEDDED)


def test_semantic_types_filter_what_was_found(cat, monkeypatch):
    text = "CT of the chest with pneumothorax, T060 T029 T047"
    found = {}
    monkeypatch.setattr(_medcat, "build", lambda table: cat)
    for types in ("all", "medcon66", ["T047"], ["T060", "T029"], ["T999"]):
        metric = build("umls_f1", types=types)
        metric.load("cpu", {})
        found[str(types)] = metric.concepts(text)
    ct, chest, pneumothorax = "C0040405", "C0817096", "C0032326"
    assert found == {
        "all": {ct, chest, pneumothorax},
        "medcon66": {chest, pneumothorax},
        "['T047']": {pneumothorax},
        "['T060', 'T029']": {ct, chest},
        "['T999']": set(),
    }
    assert len(MEDCON66) == 66
    assert len({build("umls_f1", types=types).signature() for types in ("all", "medcon66", ["T047"])}) == 3


@pytest.mark.parametrize("types", ["medcon", ["anatomy"], ["T47"]])
def test_unknown_types_are_refused(types):
    with pytest.raises(RequestError, match="expected"):
        UmlsF1("umls_f1", "embedded", types, trust_pack=False)


def test_a_text_that_breaks_medcat_fails_alone_and_says_why(cat, monkeypatch):
    good = cat

    class Broken:
        config, cdb = good.config, good.cdb

        def __call__(self, text):
            if "poison" in text:
                raise KeyError("entities")
            return good(text)

    metric = build("umls_f1")
    monkeypatch.setattr(_medcat, "build", lambda table: Broken())
    metric.load("cpu", {})
    scores = metric.score([pair("CT", "poison"), pair("poison", "CT"), pair("CT", "CT")], [])
    assert [score.values for score in scores[:2]] == [{}, {}]
    assert [score.reason for score in scores[:2]] == [
        f"{side}: MedCAT failed: KeyError: 'entities'" for side in ("candidate", "reference")
    ]
    assert scores[2].values["f1"] == 1


def test_each_text_is_read_once(cat, monkeypatch):
    seen = []
    monkeypatch.setattr(_medcat, "build", lambda table: cat)
    monkeypatch.setattr(_medcat, "concepts", lambda cat, text: seen.append(text) or {})
    metric = build("umls_f1")
    metric.load("cpu", {})
    metric.score([pair("a", "b"), pair("a", "b"), pair("b", "a"), pair("a", "c")], [])
    metric.score([pair("a", "d")], [])
    assert sorted(seen) == ["a", "b", "c", "d"]


def test_model_pack_from_zip_and_folder(cat, metrics, tmp_path):
    folder = Path(cat.save_model_pack(str(tmp_path), "pack", add_hash_to_pack_name=False))
    archive = folder.with_name(folder.name + ".zip")
    before = sorted(tmp_path.rglob("*"))
    for source in (folder, archive):
        untrusted = build("umls_f1", pack=str(source))
        assert "trust_pack=true" in untrusted.missing()
        with pytest.raises(RequestError, match="pickles"):
            untrusted.load("cpu", {})
        metric = build("umls_f1", pack=str(source), trust_pack=True)
        assert metric.missing() is None
        metric.load("cpu", {})
        assert metric.concepts(REAL[0]["caption"]) == set(REAL[0]["concepts"].split())
        assert metric.signature() != metrics["umls_f1"].signature()
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written beside the pack"


def test_a_model_pack_that_is_not_there_is_named_with_a_remedy():
    metric = build("umls_f1", pack="/nowhere/pack", trust_pack=True)
    assert "metric.umls_f1.pack" in metric.missing()
    with pytest.raises(RequestError, match="/nowhere/pack"):
        metric.signature()
    with pytest.raises(RequestError, match="/nowhere/pack"):
        metric.load("cpu", {})


def test_medcat_is_imported_without_asking_for_updates(tmp_path):
    code = """
import socket
def refuse(*args, **kwargs):
    raise SystemExit("network use")
socket.socket.connect = socket.getaddrinfo = refuse
from harness.metrics.umls_f1 import UmlsF1
metric = UmlsF1("umls_f1", "embedded", "all", False)
metric.load("cpu", {})
print(sorted(metric.concepts("CT of the chest")))
"""
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (done.stdout.strip(), done.stderr) == ("['C0040405', 'C0817096']", "")
    assert list(tmp_path.rglob("*")) == [], "no log file, no cache"
