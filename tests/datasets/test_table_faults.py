"""Rows and tables that cannot be used, each with its reason."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from harness import config
from harness.contracts import RequestError
from harness.datasets._table_cells import CellError, caption_text, concept_ids
from tests.support.caption_tables import ROWS, picture, table, write_csv


@pytest.fixture
def pictures(tmp_path) -> Path:
    for value, name in enumerate("abcdef"):
        picture(tmp_path / f"{name}.png", value)
    return tmp_path


# ---------------------------------------------------------------- rows that cannot be used


@pytest.fixture
def dirty(tmp_path) -> Path:
    """A folder as they come: every fault that one row can have."""
    outside = picture(tmp_path / "outside.png")
    root = tmp_path / "root"
    for name in ("good", "second", "dup", "nocaption", "odd"):
        picture(root / f"{name}.png")
    (root / "cut.jpg").write_bytes(b"")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(root / "cut.jpg")
    (root / "cut.jpg").write_bytes((root / "cut.jpg").read_bytes()[:1500])
    (root / "text.png").write_text("hello")
    (root / "link.png").symlink_to(outside)
    (root / "inside.png").symlink_to(root / "good.png")
    (root / "seg.dcm").write_bytes(Path(str(get_testdata_file("liver_1frame.dcm", download=False))).read_bytes())
    rows = [
        ("1", "good.png", "  Fine.\n", "train"),
        ("2", "none.png", "A.", "train"),
        ("3", "cut.jpg", "A.", "train"),
        ("4", "text.png", "A.", "train"),
        ("5", "nocaption.png", " \n\t\u00a0", "train"),
        ("1", "dup.png", "A.", "train"),
        ("7", "seg.dcm", "A.", "train"),
        ("8", "../outside.png", "A.", "train"),
        ("9", str(outside), "A.", "train"),
        ("10", "link.png", "A.", "train"),
        ("11", "odd.png", "A.", "holdout"),
        ("12", "", "A.", "train"),
        ("13", "odd.png", "A.", "train", "surplus"),
        ("14", "odd.png"),
        ("", "odd.png", "A.", "train"),
        ("16", "bad\0name.png", "A.", "train"),
        ("17", "x" * 5000, "A.", "train"),
        ("18", ".", "A.", "train"),
        ("19", "inside.png", "A.", "train"),
        ("20", str(root / "second.png"), "Last.", "train"),
        ("21", "second.png", "A.", ""),
    ]
    return write_csv(root / "t.csv", rows, ("id", "image", "caption", "split"))


def test_every_faulty_row_is_in_the_ledger_with_its_reason(dirty):
    split = table(dirty).load("train")
    assert [(s.id, s.caption) for s in split.samples] == [("1", "Fine."), ("19", "A."), ("20", "Last.")]
    # Line 3 onwards: the header is line 1, and the first caption ends with a line break of its own.
    expected = [
        ("2", "line 4: image 'none.png' does not exist"),
        ("3", "line 5: picture cannot be decoded: "),
        ("4", "line 6: not a picture"),
        ("5", "line 7: caption is empty"),
        ("1", "line 9: id '1' is already used in line 2"),
        ("7", "line 10: DICOM modality SEG is not a picture"),
        ("8", "line 11: image '../outside.png' lies outside"),
        ("9", "line 12: image '/"),
        ("10", "line 13: image 'link.png' lies outside"),
        ("11", "line 14: split 'holdout', expected train, "),
        ("12", "line 15: no image: the cell is empty"),
        ("line 16", "line 16: expected 4 cells as in the header, got 5; a caption with commas needs double quotes"),
        ("line 17", "line 17: expected 4 cells as in the header, got 2"),
        ("line 18", "line 18: id is empty"),
        ("16", "line 19: image 'bad\\x00name.png'"),
        ("17", "line 20: image 'xxx"),
        ("18", "line 21: image '.' does not exist"),
        ("21", "line 24: split '', expected train, "),
    ]
    assert len(split.rejected) == len(expected)
    for rejected, (identity, reason) in zip(split.rejected, expected, strict=True):
        assert rejected.id == identity
        assert rejected.reason.startswith(reason)
        assert "\n" not in rejected.reason


def test_rows_plus_ledger_are_the_table(dirty):
    with pytest.raises(RequestError, match=r"no usable row in split 'test' \(rows: train 16, valid 0, test 0\)"):
        table(dirty).load("test")
    split = table(dirty).load("train")
    assert len(split.samples) + len(split.rejected) == 21


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"image": "a.png", "caption": 5, "split": "test"}', "caption is a int, expected text"),
        ('{"image": "a.png", "caption": null, "split": "test"}', "caption is empty"),
        ('{"image": "a.png", "caption": NaN, "split": "test"}', "caption is empty"),
        ('{"image": "a.png", "split": "test"}', "caption is empty"),
        ('{"image": ["a.png"], "caption": "A.", "split": "test"}', "image is a list, expected text"),
        ('{"image": "a.png", "caption": "\\ud800", "split": "test"}', "cannot be written as UTF-8"),
        ('{"image": "a.png", "caption": "A.", "split": "test", "concepts": "[C1"}', "no JSON list"),
        ('{"image": "a.png", "caption": "A.", "split": true}', "split is a bool, expected text"),
    ],
)
def test_jsonl_cells_of_a_wrong_kind(pictures, line, words):
    path = pictures / "t.jsonl"
    path.write_text('{"image": "b.png", "caption": "B.", "split": "test", "concepts": "C1"}\n' + line)
    split = table(path).load("test")
    assert [sample.id for sample in split.samples] == ["b.png"]
    assert len(split.rejected) == 1
    assert words in split.rejected[0].reason


def test_captions_keep_everything_but_outer_white_space():
    assert caption_text(" a \n b\u2011c ") == "a \n b\u2011c"
    with pytest.raises(CellError, match="empty"):
        caption_text(float("nan"))


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("", ()),
        (None, ()),
        ("C1;C2", ("C1", "C2")),
        (" C1 ; ;nan", ("C1",)),
        ('["C1", "C2"]', ("C1", "C2")),
        (["nan"], ()),
        ([], ()),
        (float("nan"), ()),
    ],
)
def test_concept_cells(cell, expected):
    assert concept_ids(cell) == expected


# ---------------------------------------------------------------- tables that cannot be used


def refused(path, split="test", **changes) -> str:
    with pytest.raises(RequestError) as caught:
        table(path, **changes).load(split)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("path", [None, "", "???"])
def test_a_missing_path_says_how_to_give_one(path):
    assert "dataset.path=FILE" in refused(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"", ["expected rows, got none"]),
        ("t.csv", b"image,caption\n", ["expected rows, got none"]),
        ("t.csv", b"picture,caption\na.png,A.\n", ["found picture, caption"]),
        ("t.csv", b"images,caption\na.png,A.\n", ["did you mean 'images'?"]),
        ("t.csv", b"image,caption,image\na.png,A.,b.png\n", ["'image' appears twice"]),
        ("t.csv", b"image;caption\na.png;A.\n", ["found image;caption"]),
        ("t.csv", b'image,caption\na.png,"open\nb.png,B.\n', ["line 2", "double", "unexpected end of data"]),
        ("t.csv", b'image,caption\na.png,A.\nb.png,"B" or not\n', ["line 3", "a cell with quotes"]),
        ("t.csv", b"image,caption\na.png,caf\xe9\n", ["UTF-8", "byte 23 (0xe9)", "save it as UTF-8"]),
        ("t.csv", "image,caption\na.png,A.\n".encode("utf-16"), ["UTF-8", "byte 0 (0xff)"]),
        ("t.xlsx", b"PK", ["'.xlsx'", ".csv, .tsv, .jsonl, .parquet"]),
        ("t", b"image,caption\n", [".csv, .tsv, .jsonl, .parquet"]),
        ("t.jsonl", b'{"image": "a.png"}\n\n{"image": \n', ["line 3", "one JSON object"]),
        ("t.jsonl", b'["a.png", "A."]\n', ["line 1", "expected a JSON object, got a list"]),
        ("t.jsonl", b"[" * 100_000, ["line 1"]),
        ("t.jsonl", b'{"image": ' + b"9" * 5000 + b"}", ["line 1"]),
        ("t.jsonl", b"", ["dataset.path=", "expected rows, got none"]),
        ("t.parquet", b"PAR1 and no more", ["expected a Parquet file"]),
    ],
)
def test_unreadable_tables(pictures, name, content, words):
    path = pictures / name
    path.write_bytes(content)
    message = refused(path)
    for word in words:
        assert word in message


def test_missing_file_and_root(tmp_path):
    assert "no such file" in refused(tmp_path / "none" / "t.csv")
    path = write_csv(tmp_path / "t.csv", [("a.png", "A.", "test")])
    assert "dataset.root=" in refused(path, root=str(tmp_path / "none"))


@pytest.mark.parametrize("option", ["id_column", "split_column", "modality_column", "concepts_column"])
def test_an_optional_column_that_is_asked_for_must_exist(pictures, option):
    message = refused(write_csv(pictures / "t.csv", ROWS), **{option: "captoin"})
    assert f"dataset.{option}=captoin" in message
    assert "did you mean 'caption'?" in message


def test_no_usable_row_shows_the_first_reason(pictures):
    message = refused(write_csv(pictures / "t.csv", [("none.png", "A.", "test"), ("a.png", "A.", "train")]))
    assert "rows: train 1, valid 0, test 1" in message
    assert "1 rejected, the first: none.png: line 2: image 'none.png' does not exist" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_table_without_permission(pictures):
    path = write_csv(pictures / "t.csv", ROWS)
    path.chmod(0)
    assert "cannot be read" in refused(path)


@pytest.mark.parametrize(
    "shares",
    [{"train": 1.0}, {"train": 0.5, "valid": 0.1, "test": 0.1}, {"train": 1.2, "valid": -0.2, "test": 0.0}],
)
def test_shares_must_be_shares(shares):
    with pytest.raises(RequestError, match=r"dataset\.shares"):
        table("t.csv", shares=shares)


def test_limit_must_be_positive():
    with pytest.raises(RequestError, match=r"dataset\.limit"):
        config.build_node(config.choice("dataset", "table") | {"path": "t.csv", "limit": 0}, "dataset")
