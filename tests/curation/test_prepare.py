"""`capbench data prepare` and the dataset `prepared`: equal rows, resumption, identity, damage."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from harness import cli, config
from harness.contracts import SPLITS, ImageError, RequestError
from harness.curation import shards
from harness.curation.shards import Encoding, encode
from harness.datasets import prepared
from harness.datasets.prepared import Prepared
from tests.support import dirty
from tests.support.dirty import source

PHANTOM = ["phantom", "dataset.train=20", "dataset.valid=5", "dataset.test=5"]


@pytest.fixture(autouse=True)
def nothing_kept():
    """Shards are kept open by path; tests write other ones to it."""
    yield
    prepared.opened.cache_clear()
    prepared.images_of.cache_clear()


def prepare(out: Path, *words: str, dataset=PHANTOM, rows=8, size=64) -> int:
    return cli.main(["data", "prepare", *dataset, f"out={out}", f"rows={rows}", f"size={size}", "workers=0", *words])


def loaded(out: Path, split: str = "train", limit=None, ids=None):
    return Prepared("prepared", str(out), ids, limit).load(split)


def manifest(out: Path):
    return json.loads((out / "manifest.json").read_text())


def built(words):
    cell = config.cells("data_prepare", [f"dataset={words[0]}", *words[1:], "out=x"])[0]
    return config.build(cell, "dataset")


def times(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}


# ---------------------------------------------------------------- the rows


def test_rows_are_those_of_the_source(tmp_path):
    assert prepare(tmp_path) == 0
    phantom = built(PHANTOM)
    for split in SPLITS:
        ours, theirs = loaded(tmp_path, split), phantom.load(split)
        for name in ("id", "caption", "split", "modality", "concepts", "factors", "task"):
            assert [getattr(s, name) for s in ours.samples] == [getattr(s, name) for s in theirs.samples], name
        assert (ours.name, ours.rejected) == (theirs.name, theirs.rejected)
    assert [(s["split"], s["rows"]) for s in manifest(tmp_path)["shards"]] == [
        *[("train", 8), ("train", 8), ("train", 4)],
        ("valid", 5),
        ("test", 5),
    ]


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_pictures_are_the_resized_ones(tmp_path, form):
    prepare(tmp_path, f"format={form}", "quality=95")
    for ours, theirs in zip(loaded(tmp_path).samples, built(PHANTOM).load("train").samples, strict=True):
        image, whole = ours.images[0].load(), theirs.images[0].load()
        assert (image.mode, image.size) == ("RGB", (64, 64))
        expected = np.asarray(whole.resize((64, 64), Image.Resampling.LANCZOS), int)
        apart = np.abs(np.asarray(image, int) - expected)
        assert np.percentile(apart, 99) <= 10
        assert apart.mean() <= 2


@pytest.mark.parametrize(
    ("size", "expected"), [((200, 100), (64, 32)), ((100, 200), (32, 64)), ((40, 30), (40, 30)), ((1000, 1), (64, 1))]
)
def test_the_longer_side_is_limited_and_nothing_is_enlarged(size, expected):
    import io

    data = encode(Image.new("RGB", size, (10, 200, 30)), Encoding(64, "jpeg", 95))
    assert Image.open(io.BytesIO(data)).size == expected


def test_grey_pictures_are_stored_as_grey():
    import io

    grey, colour = dirty.body(1), dirty.body(1)
    colour.putpixel((5, 5), (200, 10, 10))
    modes = [Image.open(io.BytesIO(encode(image, Encoding(96, "jpeg", 95)))).mode for image in (grey, colour)]
    assert modes == ["L", "RGB"]


def test_limit(tmp_path):
    prepare(tmp_path)
    assert [s.id for s in loaded(tmp_path, limit=11).samples] == [s.id for s in loaded(tmp_path).samples[:11]]
    with pytest.raises(RequestError, match=r"dataset\.limit"):
        config.build(config.cells("data_check", ["dataset=prepared", "dataset.limit=0"])[0], "dataset")


def test_a_list_of_ids_chooses_rows_and_the_others_are_in_the_ledger(tmp_path):
    prepare(tmp_path / "out")
    whole = loaded(tmp_path / "out")
    names = [sample.id for sample in whole.samples]
    chosen = tmp_path / "clean.csv"
    lines = [f"train,{name}" for name in (names[7], names[2], names[11])]
    chosen.write_text("\n".join(["split,id", *lines, "test,other"]) + "\n")
    part = loaded(tmp_path / "out", ids=str(chosen))
    assert [sample.id for sample in part.samples] == [names[2], names[7], names[11]]
    assert [entry.id for entry in part.rejected] == [name for name in names if names.index(name) not in (2, 7, 11)]
    assert [s.id for s in loaded(tmp_path / "out", ids=str(chosen), limit=2).samples] == [names[2], names[7]]
    with pytest.raises(RequestError, match="names 1 ids that split 'test' does not have, such as other"):
        loaded(tmp_path / "out", "test", ids=str(chosen))


def test_a_check_of_shards_lists_what_they_can_read(tmp_path):
    prepare(tmp_path / "out")
    words = ["prepared", f"dataset.root={tmp_path / 'out'}", f"out={tmp_path / 'check'}", "workers=0"]
    assert cli.main(["data", "check", *words, f"write_clean_list={tmp_path / 'clean.csv'}"]) == 0
    for split in SPLITS:
        assert loaded(tmp_path / "out", split, ids=str(tmp_path / "clean.csv")) == loaded(tmp_path / "out", split)


@pytest.mark.parametrize(("content", "words"), [("id\na", "found id"), ("", "found nothing"), (None, "cannot be read")])
def test_what_is_no_list_of_ids_is_refused(tmp_path, content, words):
    prepare(tmp_path / "out")
    if content is not None:
        (tmp_path / "ids.csv").write_text(content)
    with pytest.raises(RequestError, match=words):
        loaded(tmp_path / "out", ids=str(tmp_path / "ids.csv"))


def test_rows_that_cannot_be_used_stay_in_the_ledger(tmp_path):
    planted = dirty.make(tmp_path)
    words = source(planted, tmp_path / "out", "harness.datasets.table.Table")
    assert prepare(tmp_path / "out", dataset=words) == 0
    table = config.build(
        config.cells("data_prepare", ["dataset=dirty", words[3], "out=x"], config_dir=words[2])[0], "dataset"
    )
    for split in SPLITS:
        theirs = table.load(split)
        assert [s.id for s in loaded(tmp_path / "out", split).samples] == [s.id for s in theirs.samples]
        assert loaded(tmp_path / "out", split).rejected == theirs.rejected


class Lazy:
    """A dataset that does not look at its pictures before they are loaded."""

    name = "lazy"

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def load(self, split):
        from harness.contracts import Sample, Split
        from harness.imaging.files import FileImage

        paths = sorted(Path(self.folder).iterdir())
        return Split(split, tuple(Sample(path.name, (FileImage(path),), "A.", split) for path in paths))


def test_a_picture_that_cannot_be_decoded_is_left_out_and_named(tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        dirty.body(number).save(folder / f"{number}.png")
    (folder / "2.png").write_bytes(b"damaged")
    conf = tmp_path / "conf" / "dataset"
    conf.mkdir(parents=True)
    (conf / "lazy.yaml").write_text(f"_target_: tests.curation.test_prepare.Lazy\nfolder: {folder}\n")
    words = ["lazy", "--config-dir", str(tmp_path / "conf"), "splits=test"]
    for _ in range(2):  # a shard that is there tells what it left out, too
        assert prepare(tmp_path / "out", dataset=words) == 1
        assert "left out: 2.png: not a picture" in capsys.readouterr().out
        split = loaded(tmp_path / "out", "test")
        assert [s.id for s in split.samples] == ["0.png", "1.png", "3.png", "4.png"]
        assert [entry.id for entry in split.rejected] == ["2.png"]


# ---------------------------------------------------------------- identity


def test_the_fingerprint_follows_source_and_settings_not_place_and_shards(tmp_path):
    prepare(tmp_path / "a")
    prepare(tmp_path / "b", rows=3)
    prepare(tmp_path / "c", size=48)
    prepare(tmp_path / "d", dataset=[*PHANTOM, "dataset.seed=7"])
    prints = {name: loaded(tmp_path / name).fingerprint for name in "abcd"}
    assert prints["a"] == prints["b"]
    assert len({prints["a"], prints["c"], prints["d"]}) == 3
    source_print = built(PHANTOM).load("train").fingerprint
    assert manifest(tmp_path / "a")["identity"]["source"]["train"] == source_print
    assert prints["a"] != source_print


# ---------------------------------------------------------------- going on


def test_an_interrupted_preparation_goes_on(tmp_path, monkeypatch):
    original, calls = shards.encode, []

    def counted(image, encoding):
        calls.append(image)
        if len(calls) == 19:
            raise KeyboardInterrupt
        return original(image, encoding)

    monkeypatch.setattr(shards, "encode", counted)
    assert prepare(tmp_path) == 130
    before = times(tmp_path)
    assert len(before) == 2
    with pytest.raises(RequestError, match=r"manifest\.json of a finished preparation"):
        loaded(tmp_path)
    assert prepare(tmp_path) == 0
    assert before.items() <= times(tmp_path).items(), "finished shards are not written again"
    assert len(calls) == 19 + 4 + 5 + 5
    after = times(tmp_path)
    assert prepare(tmp_path) == 0
    assert times(tmp_path) == after


def test_workers_write_the_same_bytes(tmp_path):
    prepare(tmp_path / "a")
    prepare(tmp_path / "b", "workers=2")
    assert manifest(tmp_path / "a") == manifest(tmp_path / "b")


def test_changed_sources_are_prepared_again(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(16):
        dirty.body(number).save(folder / f"{number:02}.png")
    rows = [f"{number:02}.png,Caption {number}.,test" for number in range(16)]
    (folder / "t.csv").write_text("\n".join(["image,caption,split", *rows]))
    words = ["table", f"dataset.path={folder / 't.csv'}"]
    prepare(tmp_path / "out", dataset=words)
    first, before = loaded(tmp_path / "out", "test").fingerprint, times(tmp_path / "out")
    dirty.body(99).save(folder / "12.png")
    prepare(tmp_path / "out", dataset=words)
    changed = {name for name, when in times(tmp_path / "out").items() if before[name] != when}
    assert changed == {"test-00001.parquet"}
    assert loaded(tmp_path / "out", "test").fingerprint != first


def test_other_settings_need_another_folder(tmp_path, capsys):
    prepare(tmp_path)
    assert prepare(tmp_path, "quality=50") == 2
    assert "was prepared in another way (quality: 95 -> 50)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["size=8"], "size: expected 16 to 65500, got 8"),
        (["quality=0"], "quality: expected 1 to 100, got 0"),
        (["rows=0"], "rows=0: expected 1"),
        (["format=png"], "format: expected"),
    ],
)
def test_wrong_requests(tmp_path, words, message, capsys):
    assert cli.main(["data", "prepare", *PHANTOM, f"out={tmp_path}", *words]) == 2
    assert message in capsys.readouterr().err


def test_out_is_needed(capsys):
    assert cli.main(["data", "prepare", "phantom"]) == 2
    assert "out: no value; set it with out=VALUE" in capsys.readouterr().err


# ---------------------------------------------------------------- damage


def damaged(path: Path, column: str) -> None:
    """Flip a byte in the first page of a column, as a disk may."""
    group = pq.ParquetFile(path).metadata.row_group(0)
    names = [group.column(k).path_in_schema for k in range(group.num_columns)]
    found = group.column(next(k for k, name in enumerate(names) if name.startswith(column)))
    data = bytearray(path.read_bytes())
    data[found.data_page_offset + found.total_compressed_size - 10] ^= 1
    path.unlink()  # the old bytes may still be mapped
    path.write_bytes(bytes(data))


def test_a_flipped_byte_in_pictures_is_an_image_error(tmp_path):
    prepare(tmp_path)
    damaged(tmp_path / "train-00000.parquet", "images")
    split = loaded(tmp_path)
    with pytest.raises(ImageError, match=r"train-00000\.parquet: damaged row group 0 .*capbench data prepare"):
        split.samples[0].images[0].load()
    assert split.samples[8].images[0].load().size == (64, 64)


def test_a_flipped_byte_in_captions_is_refused(tmp_path):
    prepare(tmp_path)
    damaged(tmp_path / "train-00001.parquet", "caption")
    with pytest.raises(RequestError, match=r"train-00001\.parquet: a missing or damaged shard .*delete it and repeat"):
        loaded(tmp_path)


def test_a_short_or_missing_shard_is_refused_and_made_again(tmp_path):
    prepare(tmp_path)
    path = tmp_path / "train-00002.parquet"
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[:-100])
    with pytest.raises(RequestError, match=rf"expected a shard of {len(whole)} bytes, got {len(whole) - 100}"):
        loaded(tmp_path)
    path.unlink()
    with pytest.raises(RequestError, match="missing or damaged shard"):
        loaded(tmp_path)
    before = times(tmp_path)
    prepare(tmp_path)
    assert path.read_bytes() == whole
    damaged(tmp_path / "train-00000.parquet", "images")
    prepare(tmp_path)
    assert [image.load().size for sample in loaded(tmp_path).samples for image in sample.images] == [(64, 64)] * 20
    untouched = {name: when for name, when in before.items() if name not in ("train-00000.parquet", path.name)}
    assert untouched.items() <= times(tmp_path).items()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kind": "run"}', '{"kind": "prepared"}'])
def test_a_manifest_of_something_else(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(RequestError, match="expected the manifest of a preparation"):
        loaded(tmp_path)


def test_no_folder_no_split(tmp_path):
    with pytest.raises(RequestError, match=r"dataset\.root: expected a folder"):
        Prepared("prepared", None, None, None).load("train")
    prepare(tmp_path, "splits=train,valid")
    with pytest.raises(RequestError, match="expected a split 'test', found train, valid"):
        loaded(tmp_path, "test")
    with pytest.raises(RequestError, match="expected a split of train, valid, test, got 'dev'"):
        loaded(tmp_path, "dev")


def test_it_can_be_checked_and_chosen(tmp_path):
    prepare(tmp_path / "out")
    words = ["prepared", f"dataset.root={tmp_path / 'out'}", f"out={tmp_path / 'check'}", "workers=0"]
    assert cli.main(["data", "check", *words]) == 0
    cell = config.cells("run", ["dataset=prepared", f"dataset.root={tmp_path / 'out'}"])[0]
    assert len(config.build(cell, "dataset").load("test").samples) == 5
