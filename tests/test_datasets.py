"""Datasets: the contract, for each yaml, and the table of a user's own files."""

import csv
import io
import json
import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make_rocov2 import make
from PIL import Image
from pydicom.data import get_testdata_file

from harness import config
from harness.contracts import SPLITS, RequestError
from harness.datasets import _parquet
from harness.datasets._parquet import ParquetImage
from harness.datasets._table_cells import CellError, caption_text, concept_ids, shared_split
from harness.datasets.table import Table
from harness.registry import groups

COLUMNS = ("image", "caption")
SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}


@pytest.fixture(params=groups()["dataset"])
def contracted(request, tmp_path):
    """Each dataset as its yaml has it, on files of its form where it needs a user's."""
    node = config.choice("dataset", request.param) | {"cache": str(tmp_path / "cache")}
    if request.param in ("rocov2", "imageclef"):
        make(tmp_path / "set")
        node["root"] = str(tmp_path / "set")
    elif request.param == "table":
        for value in range(40):
            picture(tmp_path / f"{value}.png", value)
        node["path"] = str(write_csv(tmp_path / "t.csv", [(f"{k}.png", f"A {k}.") for k in range(40)], COLUMNS))
    elif {"path", "root"} & set(node):
        pytest.skip("needs files of a form that nobody wrote a maker for")
    else:
        del node["cache"]
    return config.build_node(node, "dataset")


# ---------------------------------------------------------------- the contract


def test_contract(contracted, request):
    dataset = contracted
    assert dataset.name == request.node.callspec.params["contracted"]
    splits = {split: dataset.load(split) for split in SPLITS}
    ids = Counter(sample.id for split in splits.values() for sample in split.samples)
    assert ids.most_common(1)[0][1] == 1, "ids are unique and splits disjoint"
    for name_of_split, split in splits.items():
        assert split.name == name_of_split
        assert split.samples
        assert split.samples == dataset.load(name_of_split).samples, "the same order each time"
        for sample in split.samples:
            assert sample.split == name_of_split
            assert sample.caption.strip() == sample.caption != ""
            assert sample.modality
            assert sample.images
        image = split.samples[0].images[0]
        assert image.load().mode == "RGB"
        assert image.digest() == image.digest() != split.samples[1].images[0].digest()
        assert pickle.loads(pickle.dumps(split.samples)) == split.samples, "for the workers of a loader"


def test_unknown_split_is_refused(contracted):
    with pytest.raises(RequestError, match=r"expected a split of train, valid, test, got 'dev'"):
        contracted.load("dev")


# ---------------------------------------------------------------- making tables


def table(path, **changes):
    values = {
        "root": None,
        "image_column": "image",
        "caption_column": "caption",
        "id_column": None,
        "split_column": None,
        "modality_column": None,
        "concepts_column": None,
        "shares": SHARES,
        "view": {},
        "ids": None,
        "limit": None,
        "stratify": "modality",
        "seed": 0,
        "clean": "strip",
        "check": "decoded",
        "cache": None,
        "recheck": False,
    }
    return Table("table", path=path if path is None else str(path), **{**values, **changes})


def picture(path: Path, value=0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)
    return path


def png(value) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_csv(path: Path, rows, header=("image", "caption", "split"), delimiter=",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)
    return path


@pytest.fixture
def pictures(tmp_path) -> Path:
    for value, name in enumerate("abcdef"):
        picture(tmp_path / f"{name}.png", value)
    return tmp_path


def reasons(split):
    return {rejected.id: rejected.reason for rejected in split.rejected}


AWKWARD = 'He said: "no, two"\nlines; a\u2028separator, ünïcödé'


# ---------------------------------------------------------------- kinds of tables


def check_awkward(dataset):
    """Three rows, one per split, the first with a caption that breaks naive readers."""
    (sample,) = dataset.load("train").samples
    assert sample.caption == AWKWARD
    assert sample.images[0].load().getpixel((0, 0)) == (0, 0, 0)
    assert [s.id for split in ("valid", "test") for s in dataset.load(split).samples] == ["b.png", "c.png"]


ROWS = [("a.png", f" {AWKWARD}\n", "train"), ("b.png", "B.", "val"), ("c.png", "C.", "TEST")]


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t"), ("csv", "\t")])
def test_csv_with_quotes_and_line_breaks(pictures, suffix, delimiter):
    check_awkward(table(write_csv(pictures / f"t.{suffix}", ROWS, delimiter=delimiter)))


def test_csv_with_byte_order_mark_carriage_returns_and_blank_lines(pictures):
    path = write_csv(pictures / "t.csv", ROWS, header=(" Image ", "CAPTION", "split"))
    text = path.read_text(encoding="utf-8")
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\r\n", "\n").encode() + b"\n\n")
    check_awkward(table(path))


def test_jsonl(pictures):
    lines = [json.dumps(dict(zip(("image", "caption", "split"), row, strict=True)), ensure_ascii=False) for row in ROWS]
    path = pictures / "t.jsonl"
    path.write_text("\n\n".join(lines), encoding="utf-8")
    check_awkward(table(path))


def test_parquet_with_paths(pictures):
    path = pictures / "t.parquet"
    columns = list(zip(*ROWS, strict=True))
    pq.write_table(pa.table(dict(zip(("image", "caption", "split"), map(list, columns), strict=True))), path)
    check_awkward(table(path))


@pytest.mark.parametrize("form", ["struct", "bytes"])
@pytest.mark.parametrize("group", [2, 100])
def test_parquet_with_pictures_inside(tmp_path, form, group):
    cells = [png(value) if form == "bytes" else {"bytes": png(value), "path": None} for value in range(5)]
    cells[3] = None if form == "bytes" else {"bytes": png(3)[:45], "path": None}
    captions, concepts = [f"Caption {k}." for k in range(5)], [["C1", "nan"], [], ["C2"], [], []]
    path = tmp_path / "t.parquet"
    data = {"image": cells, "caption": captions, "concepts": concepts, "split": ["validation"] * 5}
    pq.write_table(pa.table(data), path, row_group_size=group)
    split = table(path).load("valid")
    assert [sample.id for sample in split.samples] == ["1", "2", "3", "5"]
    assert [sample.images[0].load().getpixel((0, 0))[0] for sample in split.samples] == [0, 1, 2, 4]
    assert [sample.concepts for sample in split.samples] == [("C1",), (), ("C2",), ()]
    assert len({sample.images[0].digest() for sample in split.samples}) == 4
    assert list(reasons(split)) == ["4"]
    assert reasons(split)["4"].startswith("line 4: ")


def test_pictures_inside_a_parquet_stay_there(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": [png(0)], "caption": ["A."], "split": ["test"]}), path)
    (sample,) = table(path).load("test").samples
    assert sample.images == (ParquetImage(path, "image", 0, 0),)


# ---------------------------------------------------------------- optional columns


def test_columns_by_name(pictures):
    header = ("file", "text", "key", "fold", "kind", "cuis")
    path = write_csv(pictures / "t.csv", [("a.png", "A.", "k1", "dev", "CT", "C1;C2; ;nan")], header)
    names = dict(zip(("image", "caption", "id", "split", "modality", "concepts"), header, strict=True))
    (sample,) = table(path, **{f"{key}_column": value for key, value in names.items()}).load("valid").samples
    assert (sample.id, sample.modality, sample.concepts, sample.split) == ("k1", "CT", ("C1", "C2"), "valid")


def test_optional_columns_are_found_by_their_usual_names(pictures):
    rows = [("a.png", "A.", "7", "test", "MRI", '["C1", "nan"]')]
    path = write_csv(pictures / "t.csv", rows, ("image", "caption", "ID", "split", "modality", "concepts"))
    (sample,) = table(path).load("test").samples
    assert (sample.id, sample.modality, sample.concepts) == ("7", "MRI", ("C1",))


def test_bare_table_takes_path_as_id_and_deals_splits(tmp_path):
    names = [f"sub/{k}.png" for k in range(60)]
    for name in names:
        picture(tmp_path / name)
    path = write_csv(tmp_path / "t.csv", [(name, "A.") for name in names], ("image", "caption"))
    splits = {split: [s.id for s in table(path).load(split).samples] for split in SPLITS}
    assert sorted(name for ids in splits.values() for name in ids) == sorted(names)
    for split, ids in splits.items():
        assert ids == [name for name in names if name in ids]
        assert ids == [name for name in names if shared_split(name, SHARES) == split]
    write_csv(path, [("new.png", "A."), *[(name, "A.") for name in names]], ("image", "caption"))
    picture(tmp_path / "new.png")
    grown = {split: [s.id for s in table(path).load(split).samples if s.id != "new.png"] for split in SPLITS}
    assert grown == splits, "a growing table moves no row"


def test_shares_are_met():
    dealt = Counter(shared_split(str(k), SHARES) for k in range(5000))
    for split, share in SHARES.items():
        assert dealt[split] / 5000 == pytest.approx(share, abs=0.025)
    assert {shared_split(str(k), {"train": 0.0, "valid": 0.0, "test": 1.0}) for k in range(50)} == {"test"}


def test_modality_is_the_tables_or_that_of_the_dicom_file(tmp_path):
    for name in ("CT_small.dcm", "MR_small.dcm", "examples_palette.dcm"):
        (tmp_path / name).write_bytes(Path(str(get_testdata_file(name, download=False))).read_bytes())
    picture(tmp_path / "a.png")
    rows = [("CT_small.dcm", ""), ("MR_small.dcm", "PET"), ("examples_palette.dcm", ""), ("a.png", "")]
    header = ("image", "modality", "caption", "split")
    path = write_csv(tmp_path / "t.csv", [(*row, "A.", "test") for row in rows], header)
    assert [s.modality for s in table(path).load("test").samples] == ["CT", "PET", "Ultrasound", "unknown"]


def test_root_is_where_image_paths_start(tmp_path):
    picture(tmp_path / "pictures" / "a.png")
    (tmp_path / "tables").mkdir()
    path = write_csv(tmp_path / "tables" / "t.csv", [("a.png", "A.", "test")])
    assert table(path, root=str(tmp_path / "pictures")).load("test").samples[0].id == "a.png"
    with pytest.raises(RequestError, match="does not exist"):
        table(path).load("test")


def test_limit_takes_usable_rows_and_names_the_others(pictures):
    rows = [("none.png", "A.", "test"), *[(f"{name}.png", "A.", "test") for name in "abcdef"], ("a.png", "A.", "train")]
    path = write_csv(pictures / "t.csv", rows)
    whole, part = table(path).load("test"), table(path, limit=3).load("test")
    assert len(part.samples) == 3
    assert [s.id for s in whole.samples if s in part.samples] == [s.id for s in part.samples], "in the table's order"
    assert part.rejected == whole.rejected


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
        table("t.csv", limit=0)


# ---------------------------------------------------------------- identity


def test_the_fingerprint_follows_content_not_place(tmp_path):
    prints = []
    for folder in ("one", "two"):
        picture(tmp_path / folder / "a.png", 7)
        path = write_csv(tmp_path / folder / "t.csv", [("a.png", "A.", "test")])
        prints.append(table(path).load("test").fingerprint)
    assert prints[0] == prints[1]
    picture(tmp_path / "two" / "a.png", 8)
    assert table(path).load("test").fingerprint != prints[0]


def test_a_damaged_row_group_is_an_image_error_of_its_row(tmp_path):
    path = tmp_path / "t.parquet"
    cells = {"image": [png(0), png(1)], "caption": ["A.", "B."], "split": ["test"] * 2}
    pq.write_table(pa.table(cells), path, row_group_size=1, use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset : column.data_page_offset + 16] = b"\xff" * 16
    path.write_bytes(bytes(data))
    _parquet.encoded_column.cache_clear()
    split = table(path).load("test")
    assert [sample.id for sample in split.samples] == ["2"]
    assert split.rejected[0].id == "1"


def test_shipped_dicom_table_is_complete():
    """The table of the real-input test: every file is in pydicom, every split is there."""
    with (Path(__file__).parent / "data" / "dicom_captions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["split"] for row in rows) == {"train": 8, "valid": 2, "test": 3}
    for row in rows:
        assert get_testdata_file(row["image"], download=False), row
        assert row["caption"]
