"""The table of a user's own files: its kinds, columns and identity."""

import csv
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydicom.data import get_testdata_file

from harness.contracts import SPLITS, RequestError
from harness.datasets._table_cells import shared_split
from harness.imaging import parquet
from harness.imaging.parquet import ParquetImage
from tests.support.caption_tables import AWKWARD, ROWS, SHARES, picture, png, reasons, table, write_csv
from tests.support.commands import ROOT


@pytest.fixture
def pictures(tmp_path) -> Path:
    for value, name in enumerate("abcdef"):
        picture(tmp_path / f"{name}.png", value)
    return tmp_path


# ---------------------------------------------------------------- kinds of tables


def check_awkward(dataset):
    """Three rows, one per split, the first with a caption that breaks naive readers."""
    (sample,) = dataset.load("train").samples
    assert sample.caption == AWKWARD
    assert sample.images[0].load().getpixel((0, 0)) == (0, 0, 0)
    assert [s.id for split in ("valid", "test") for s in dataset.load(split).samples] == ["b.png", "c.png"]


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
    parquet.encoded_column.cache_clear()
    split = table(path).load("test")
    assert [sample.id for sample in split.samples] == ["2"]
    assert split.rejected[0].id == "1"


def test_shipped_dicom_table_is_complete():
    """The table of the real-input test: every file is in pydicom, every split is there."""
    with (ROOT / "tests" / "data" / "dicom_captions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["split"] for row in rows) == {"train": 8, "valid": 2, "test": 3}
    for row in rows:
        assert get_testdata_file(row["image"], download=False), row
        assert row["caption"]
