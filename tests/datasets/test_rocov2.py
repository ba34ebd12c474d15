"""ROCOv2 in every form that people have it, with the traps of the real files."""

import zipfile
from collections import Counter

import pyarrow.parquet as pq
import pytest

from harness.contracts import SPLITS, RequestError
from harness.datasets import _folder
from harness.datasets._challenge import LICENCE
from harness.imaging.modalities import modality_of_concepts
from harness.imaging.zipped import ZipImage
from tests.support.real_sets import ids, ledger, rocov2
from tests.support.rocov2_like import (
    MODALITIES,
    encoded,
    make,
    plan,
    write_csv,
    write_parquet,
    write_tables,
    write_zips,
)

# ---------------------------------------------------------------- ROCOv2: forms

LAYOUTS = ("{split}_images/{split}", "{split}", "{split}_images", "images/{split}", "images")


@pytest.fixture(scope="module")
def fingerprints(tmp_path_factory):
    """Of Zenodo's plain layout."""
    root = tmp_path_factory.mktemp("plain")
    make(root)
    return {split: rocov2(root).load(split).fingerprint for split in SPLITS}


@pytest.mark.parametrize("where", LAYOUTS)
def test_layouts_of_unpacked_pictures(where, fingerprints, tmp_path):
    rows = make(tmp_path, where=where)
    for split in SPLITS:
        loaded = rocov2(tmp_path).load(split)
        assert ids(loaded) == [row["id"] for row in rows[split]]
        assert not loaded.rejected
        assert loaded.fingerprint == fingerprints[split]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("renamed", ["{split}_images.zip", "{split}.zip", "more/ROCOv2 {split} pictures.zip"])
def test_zipped_pictures_are_the_same_as_unpacked_ones(method, renamed, fingerprints, tmp_path):
    rows = plan(dict(zip(SPLITS, (12, 6, 8), strict=True)))
    write_tables(tmp_path, rows)
    write_zips(tmp_path, rows, 32, method)
    (tmp_path / "more").mkdir()
    for split in SPLITS:
        (tmp_path / f"{split}_images.zip").rename(tmp_path / renamed.format(split=split))
    for split in SPLITS:
        loaded = rocov2(tmp_path, check="decoded").load(split)
        assert ids(loaded) == [row["id"] for row in rows[split]]
        assert not loaded.rejected
        assert loaded.fingerprint == fingerprints[split]
        assert all(isinstance(sample.images[0], ZipImage) for sample in loaded.samples)


def test_one_archive_may_hold_all_splits(fingerprints, tmp_path):
    make(tmp_path, form="zipped")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as whole:
        for split in SPLITS:
            with zipfile.ZipFile(tmp_path / f"{split}_images.zip") as part:
                for name in part.namelist():
                    whole.writestr(f"ROCOv2/{name}", part.read(name))
            (tmp_path / f"{split}_images.zip").unlink()
    loaded = {split: rocov2(tmp_path).load(split) for split in SPLITS}
    assert {split: loaded[split].fingerprint for split in SPLITS} == fingerprints
    assert not any(split.rejected for split in loaded.values())


def test_unpacked_pictures_go_before_an_archive_that_was_kept(tmp_path):
    rows = make(tmp_path)
    write_zips(tmp_path, rows, 32)
    loaded = rocov2(tmp_path).load("test")
    assert not loaded.rejected
    assert not any(isinstance(sample.images[0], ZipImage) for sample in loaded.samples)


@pytest.mark.parametrize("where", ["data", "."])
def test_parquet_of_hugging_face(where, tmp_path):
    rows = make(tmp_path, (30, 6, 8), "parquet")
    if where == ".":
        for path in (tmp_path / "data").iterdir():
            path.rename(tmp_path / path.name)
    for split in SPLITS:
        loaded = rocov2(tmp_path, check="decoded").load(split)
        assert ids(loaded) == [row["id"] for row in rows[split]]
        assert not loaded.rejected
        assert loaded.samples[4].concepts == (), "the literal ['nan']"
        assert loaded.samples[4].modality == "other", "no automatic field there"
        assert [s.concepts for s in loaded.samples] == [(r["manual"],) if r["manual"] else () for r in rows[split]]


def test_parquet_pictures_are_read_by_row_group(tmp_path):
    write_parquet(tmp_path, plan({"train": 250, "valid": 5, "test": 5}), 16)
    assert pq.ParquetFile(tmp_path / "data" / "train-00000-of-00001.parquet").num_row_groups == 3
    samples = rocov2(tmp_path).load("train").samples
    assert [samples[k].images[0].group for k in (0, 99, 100, 249)] == [0, 0, 1, 2]
    assert [samples[k].images[0].digest() for k in (0, 16, 112)] == [samples[208].images[0].digest()] * 3


def test_a_hub_id_that_cannot_be_fetched_says_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RequestError, match=r"dataset\.hub=nobody/nothing: cannot be fetched .*dataset\.root=FOLDER"):
        rocov2(None, hub="nobody/nothing").load("test")


def test_a_hub_id_is_the_folder_that_was_fetched(monkeypatch, tmp_path):
    """Hugging Face's cache is made of links that lead out of the snapshot."""
    make(tmp_path / "blobs", form="parquet")
    (tmp_path / "snapshot" / "data").mkdir(parents=True)
    for path in (tmp_path / "blobs" / "data").iterdir():
        (tmp_path / "snapshot" / "data" / path.name).symlink_to(path)
    asked = {}

    def fetched(hub, **options):
        asked.update(options, hub=hub)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("harness.datasets.rocov2.snapshot_download", fetched)
    assert len(rocov2(None, hub="some/set").load("valid").samples) == 6
    assert (asked["hub"], asked["repo_type"]) == ("some/set", "dataset")


# ---------------------------------------------------------------- ROCOv2: rows


def test_gaps_blanks_quotes_and_modes(tmp_path):
    rows = make(tmp_path)
    samples = rocov2(tmp_path).load("train").samples
    assert [s.id[-6:] for s in samples[:4]] == ["000001", "000002", "000004", "000005"]
    assert samples[1].caption == "Chest X\u2011ray with a \u201cground glass\u201d opacity"
    assert samples[1].factors["raw_caption"] == rows["train"][1]["caption"]
    assert "raw_caption" not in samples[0].factors
    assert samples[3].caption == 'A mass, "popcorn" like, 3.5 \u00d7 2 cm'
    assert {s.images[0].load().mode for s in samples} == {"RGB"}


@pytest.mark.parametrize(
    ("clean", "expected"),
    [
        ("none", " Chest\u00a0 X\u2011ray,\n\u201cground\u201d\u2026 "),
        ("strip", "Chest\u00a0 X\u2011ray,\n\u201cground\u201d\u2026"),
        ("whitespace", "Chest X\u2011ray, \u201cground\u201d\u2026"),
        ("typography", 'Chest X-ray, "ground"...'),
    ],
)
def test_captions_are_cleaned_as_declared(clean, expected, tmp_path):
    make(tmp_path, (1, 1, 1))
    raw = " Chest\u00a0 X\u2011ray,\n\u201cground\u201d\u2026 "
    write_csv(tmp_path / "test_captions.csv", ("ID", "Caption"), [("ROCOv2_2023_test_000001", raw)])
    (sample,) = rocov2(tmp_path, clean=clean).load("test").samples
    assert sample.caption == expected
    assert sample.factors.get("raw_caption") == (None if clean == "none" else raw)


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path):
    make(tmp_path)
    for path in tmp_path.glob("*.csv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert not rocov2(tmp_path).load("test").rejected


def test_licence_per_picture(tmp_path):
    make(tmp_path)
    facts = [sample.factors for sample in rocov2(tmp_path).load("test").samples]
    assert Counter(fact["licence"] for fact in facts) == {"CC BY": 4, "CC BY-NC": 4}
    assert facts[0]["attribution"] == "CC BY [Muacevic A, et al. (2019)]"
    assert facts[0]["pmcid"] == "PMC18"
    (tmp_path / "license_information.csv").unlink()
    assert "licence" not in rocov2(tmp_path).load("test").samples[0].factors


@pytest.mark.parametrize(
    ("text", "licence"),
    [("CC BY [A]", "CC BY"), ("CC BY-NC-SA 4.0, A", "CC BY-NC-SA 4.0"), ("cc by", "cc by"), ("A, CC BY", None)],
)
def test_licence_is_the_beginning_of_the_attribution(text, licence):
    found = LICENCE.match(text)
    assert (found.group() if found else None) == licence


@pytest.mark.parametrize(
    ("manual", "automatic", "modality"),
    [
        (("C0040405",), (), "CT"),
        (("C1306645", "C0817096", "C1996865"), ("C0040405",), "X-ray"),
        (("C0006141", "C1306645"), (), "X-ray"),
        ((), ("C0040405", "C1699633"), "PET/CT"),
        ((), ("C0040405", "C0817096"), "CT"),
        ((), ("C0817096",), "other"),
        ((), (), "other"),
        (("C0817096",), ("C0040405",), "other"),
        (("C0920367",), (), "OCT"),
        (("C0024485", "C0032743"), ("C1699633",), "MRI"),
    ],
)
def test_modality_rule(manual, automatic, modality):
    assert modality_of_concepts(manual, automatic) == modality


def test_modalities_and_concepts_of_a_folder(tmp_path):
    rows = make(tmp_path, (400, 6, 8))
    samples = rocov2(tmp_path).load("train").samples
    assert samples[4].modality == "PET/CT", "an empty manual field, and CT among the automatic concepts"
    assert samples[4].concepts == ("C0040405", "C1699633")
    assert samples[0].concepts == tuple(rows["train"][0]["automatic"].split(";"))
    counts = Counter(sample.modality for sample in samples)
    assert counts["CT"] > counts["X-ray"] > counts["MRI"] > counts["Angiography"] > 0
    assert len(counts) == len(MODALITIES) + 1


def test_without_concept_files_the_modality_is_unknown(tmp_path):
    make(tmp_path)
    for path in tmp_path.glob("*_concepts*.csv"):
        path.unlink()
    assert {sample.modality for sample in rocov2(tmp_path).load("test").samples} == {"unknown"}


def test_rows_without_picture_and_pictures_without_row_are_counted(tmp_path):
    rows = make(tmp_path)
    folder = tmp_path / "test_images" / "test"
    (folder / f"{rows['test'][2]['id']}.jpg").unlink()
    (folder / "surplus.jpg").write_bytes(encoded(0, 8))
    (folder / f"{rows['test'][3]['id']}.png").write_bytes(encoded(0, 8, "PNG"))
    (folder / f"{rows['test'][5]['id']}.jpg").write_bytes(encoded(0, 64)[:300])
    loaded = rocov2(tmp_path, check="decoded").load("test")
    reasons = ledger(loaded)
    assert list(reasons) == [rows["test"][k]["id"] for k in (2, 3)] + ["surplus", rows["test"][5]["id"]]
    assert "line 4: no picture: expected" in reasons[rows["test"][2]["id"]]
    assert "two pictures have this id" in reasons[rows["test"][3]["id"]]
    assert reasons["surplus"] == "a picture without a row in test_captions.csv"
    assert "cannot be decoded" in reasons[rows["test"][5]["id"]]
    assert len(loaded.samples) == 5
    assert len(rocov2(tmp_path).load("test").samples) == 6, "a listed picture is not opened"


def test_an_id_in_two_splits_stays_in_the_later_one(tmp_path):
    rows = make(tmp_path)
    again = [rows["test"][1]["id"], rows["valid"][2]["id"]]
    with (tmp_path / "train_captions.csv").open("a") as file:
        file.writelines(f"{identity},Leaked.\n" for identity in again)
    for identity in again:
        (tmp_path / "train_images" / "train" / f"{identity}.jpg").write_bytes(encoded(1, 8))
    loaded = {split: rocov2(tmp_path).load(split) for split in SPLITS}
    assert len({identity for split in loaded.values() for identity in ids(split)}) == 26
    assert [len(split.samples) for split in loaded.values()] == [12, 6, 8]
    reasons = ledger(loaded["train"])
    assert list(reasons) == again
    assert reasons[again[0]].endswith("is in split 'test' too and stays there")
    assert not loaded["test"].rejected


def test_other_faults_of_rows(tmp_path):
    rows = make(tmp_path)
    first = rows["test"][0]["id"]
    with (tmp_path / "test_captions.csv").open("a") as file:
        file.write(f"{first},Again.\n,No id.\n\nshort\n")
    write_csv(tmp_path / "test_concepts.csv", ("ID", "CUIs"), [(first, '["C1"'), ("nobody", "C2")])
    reasons = ledger(rocov2(tmp_path).load("test"))
    assert reasons[first] == f"line 10: id {first!r} is already used in line 2"
    assert reasons["line 11"] == "line 11: id is empty"
    assert reasons["short"].startswith("line 13: expected 2 cells")
    assert reasons["nobody"] == "concepts without a row in test_captions.csv"
    assert rocov2(tmp_path).load("test").rejected[0].reason.startswith("line 2: concepts"), "no JSON list"


def test_a_limit_keeps_proportions_order_and_smaller_limits(tmp_path):
    make(tmp_path, (400, 6, 8))
    whole = rocov2(tmp_path).load("train")
    large, small = (rocov2(tmp_path, limit=limit).load("train") for limit in (120, 40))
    assert set(ids(small)) < set(ids(large)) < set(ids(whole))
    assert ids(small) == [identity for identity in ids(whole) if identity in set(ids(small))]
    counts, all_counts = (Counter(s.modality for s in split.samples) for split in (small, whole))
    assert all(abs(counts[name] - all_counts[name] / 10) < 1 for name in all_counts)
    assert ids(rocov2(tmp_path, limit=40, seed=1).load("train")) != ids(small)


def test_only_the_asked_split_is_listed(tmp_path, monkeypatch):
    make(tmp_path)
    listed = []
    plain = _folder.files_in
    monkeypatch.setattr(_folder, "files_in", lambda folder, root: listed.append(folder.name) or plain(folder, root))
    rocov2(tmp_path).load("valid")
    assert set(listed) & {"train", "test", "train_images", "test_images"} == set()


def test_a_list_of_ids_chooses_the_rows_and_the_ledger_has_the_others(tmp_path):
    make(tmp_path)
    every = rocov2(tmp_path).load("test").samples
    listed = tmp_path / "clean.csv"
    listed.write_text("split,id\n" + "".join(f"test,{sample.id}\n" for sample in every[::2]))
    chosen = rocov2(tmp_path, ids=str(listed)).load("test")
    assert [sample.id for sample in chosen.samples] == [sample.id for sample in every[::2]]
    assert {row.id for row in chosen.rejected if "dataset.ids" in row.reason} == {s.id for s in every[1::2]}
    assert len(rocov2(tmp_path, ids=str(listed), limit=2).load("test").samples) == 2
