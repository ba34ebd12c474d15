"""ImageCLEF as each year delivered it, and what tells tables, headers and splits apart."""

import pytest

from harness.contracts import RequestError
from harness.datasets._csv import sniff
from harness.datasets._folder import split_of, table_key
from tests.support.real_sets import ids, imageclef, rocov2
from tests.support.rocov2_like import (
    plan,
    write_csv,
    write_pictures,
)

# ---------------------------------------------------------------- ImageCLEF


def csvs(root, split, names, header, rows, delimiter=","):
    captions, concepts = (root / name.format(split=split) for name in names)
    write_csv(captions, (header[0], header[1]), [(r["id"], r["caption"]) for r in rows], delimiter)
    write_csv(concepts, (header[0], header[2]), [(r["id"], r["automatic"]) for r in rows], delimiter)


DELIVERED = (
    "development_caption_prediction/{split}_captions.csv",
    "development_concept_detection/{split}_concepts.csv",
)
IDS_2025 = "ImageCLEFmedical_Caption_2025_{s}_{n}"
OF_2023 = (
    "ImageCLEFmedical_Caption_2023_caption_prediction_{split}_labels.csv",
    "ImageCLEFmedical_Caption_2023_concept_detection_{split}_labels.csv",
)


@pytest.mark.parametrize(
    ("names", "header", "delimiter", "identity", "pictures"),
    [
        (DELIVERED, ("ImageCLEFmedical 2025 ID", "Caption", "Cuis"), ",", IDS_2025, "{s}"),
        (OF_2023, ("ID", "caption", "cuis"), "\t", "ImageCLEFmedical_Caption_2023_{s}_{n:06d}", "{s}_images"),
        (("{split}_captions.csv", "{split}_concepts.csv"), ("ID", "Caption", "CUIs"), ",",
         "ImageCLEFmedical_Caption_2026_synth_{s}_{n:06d}", "images/{s}"),
        (("{split}/captions.csv", "{split}/concepts.csv"), ("ID", "Caption", "CUIs"), ",", "{n}", "{s}/images"),
    ],
    ids=["2025", "2023", "2026", "evaluator"],
)  # fmt: skip
def test_imageclef_of_every_year(names, header, delimiter, identity, pictures, tmp_path):
    rows = plan({"train": 9, "valid": 7, "test": 5})
    for split in ("train", "valid"):
        for number, row in enumerate(rows[split]):
            row["id"] = identity.format(s=split, n=number + (1000 if split == "valid" else 0))
        csvs(tmp_path, split, names, header, rows[split], delimiter)
        write_pictures(tmp_path, {split: rows[split]}, 16, pictures.format(s=split))
    for split in ("train", "valid"):
        loaded = imageclef(tmp_path, check="decoded").load(split)
        assert ids(loaded) == [row["id"] for row in rows[split]]
        assert not loaded.rejected
        assert [s.concepts for s in loaded.samples] == [tuple(r["automatic"].split(";")) for r in rows[split]]
        assert loaded.samples[4].modality == "PET/CT"
    with pytest.raises(RequestError, match=r"expected test_captions\.csv .*found captions of train, captions of valid"):
        imageclef(tmp_path).load("test")


def test_an_evaluators_own_folder_is_the_test_split(tmp_path):
    rows = plan({"train": 0, "valid": 0, "test": 5}, "ImageCLEFmedical_Caption_2025_")["test"]
    write_csv(tmp_path / "captions.csv", ("ID", "Caption"), [(r["id"], r["caption"]) for r in rows])
    write_csv(tmp_path / "concepts.csv", ("ID", "CUIs"), [(r["id"], r["automatic"]) for r in rows])
    write_csv(tmp_path / "concepts_manual.csv", ("ID", "CUIs"), [(r["id"], r["manual"]) for r in rows])
    write_pictures(tmp_path, {"test": rows}, 16, "images")
    loaded = imageclef(tmp_path).load("test")
    assert ids(loaded) == [row["id"] for row in rows]
    assert (loaded.samples[4].modality, loaded.rejected) == ("PET/CT", ())


@pytest.mark.parametrize("build", [rocov2, imageclef])
@pytest.mark.parametrize(("root", "words"), [(None, "add dataset.root=FOLDER"), ("none", "no such folder")])
def test_a_missing_folder(build, root, words, tmp_path):
    with pytest.raises(RequestError, match=words):
        build(root and tmp_path / root).load("test")


def test_unusable_folders(tmp_path):
    with pytest.raises(RequestError, match="found no table; is it the right folder"):
        rocov2(tmp_path).load("test")
    write_csv(tmp_path / "test_captions.csv", ("ID", "Caption"), [("a", "A."), ("b", "B.")])
    with pytest.raises(RequestError, match="no usable row in split 'test'; 2 rejected, the first: a: line 2: no pict"):
        rocov2(tmp_path).load("test")
    write_csv(tmp_path / "copy" / "test_captions.csv", ("ID", "Caption"), [("a", "A.")])
    with pytest.raises(RequestError, match=r"two files may be the captions of test, .*; move one away"):
        rocov2(tmp_path).load("test")
    with pytest.raises(RequestError, match="expected a split of train, valid, test, got 'dev'"):
        rocov2(tmp_path).load("dev")


# ---------------------------------------------------------------- the sniffers


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (("ID", "Caption"), (0, 1, None)),
        (("ImageCLEFmedical 2025 ID", "Cuis"), (0, None, 1)),
        ((" ID ", " CUIs"), (0, None, 1)),
        (("image", "image_id", "caption", "cui"), (1, 2, 3)),
        (("ID", "PMCID", "Attribution"), (0, None, None)),
        (("caption", "id"), (1, 0, None)),
    ],
)
def test_headers(columns, found, tmp_path):
    header = sniff(tmp_path, columns)
    assert (header.id, header.caption, header.concepts) == found


@pytest.mark.parametrize(("columns", "needed"), [(("name", "Caption"), "id"), (("ID", "Text"), "caption")])
def test_an_unknown_header_is_shown(columns, needed, tmp_path):
    with pytest.raises(RequestError, match=f"expected a column .*found {', '.join(columns)}"):
        sniff(tmp_path, columns, needed)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train_images", "train"),
        ("validation-00000-of-00001.parquet", "valid"),
        ("test/images", "test"),
        ("ImageCLEF_2025_valid.zip", "valid"),
        ("train_images/test", "test"),
        ("development_caption_prediction", None),
        ("train_valid_images", None),
        ("latest/contest", None),
    ],
)
def test_splits_of_paths(path, split):
    assert split_of(path.split("/")) == split


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("train_captions.csv", ("captions", "train")),
        ("train_concepts_manual.csv", ("concepts_manual", "train")),
        ("ImageCLEFmedical_Caption_2023_concept_detection_valid_labels.csv", ("concepts", "valid")),
        ("valid/captions.csv", ("captions", "valid")),
        ("captions.csv", ("captions", "test")),
        ("cui_mapping.csv", None),
        ("train_concept_mapping.csv", None),
        ("my_captions.csv", None),
        ("test_images.csv", None),
    ],
)
def test_tables_by_their_names(path, key):
    assert table_key(tuple(path.split("/"))) == key
