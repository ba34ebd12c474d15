"""Folders of pictures: nothing leads out of them, workers read what the parent reads, nothing is read twice."""

import multiprocessing
import os
import pickle
import shutil
import zipfile

import pytest

from harness.cli import main
from harness.contracts import ImageError, RequestError
from harness.imaging.zipped import ZipImage
from harness.store import files_cache
from harness.store.runs import find_runs
from tests.support.commands import LIGHT
from tests.support.real_sets import ids, ledger, rocov2
from tests.support.rocov2_like import (
    encoded,
    make,
    write_csv,
)

# ---------------------------------------------------------------- safety


@pytest.mark.parametrize(
    "identity", ["../secret", "/etc/secret", "..\\secret", "sub/../../secret", "bad\0name", "x" * 9000]
)
def test_no_id_leads_out_of_the_folder(identity, tmp_path):
    make(tmp_path / "root")
    for place in (tmp_path, tmp_path / "root"):
        (place / "secret.jpg").write_bytes(encoded(0, 8))
    write_csv(tmp_path / "root" / "test_captions.csv", ("ID", "Caption"), [(identity, "A."), ("secret", "B.")])
    loaded = rocov2(tmp_path / "root").load("test")
    assert ids(loaded) == ["secret"]
    assert "no picture" in ledger(loaded)[identity]


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    rows = make(tmp_path / "root")
    folder = tmp_path / "root" / "test_images" / "test"
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(encoded(0, 8))
    first, second = (folder / f"{rows['test'][k]['id']}.jpg" for k in (0, 1))
    for path, target in ((first, outside), (second, folder / f"{rows['test'][2]['id']}.jpg")):
        path.unlink()
        path.symlink_to(target)
    (tmp_path / "elsewhere").mkdir()
    shutil.move(folder / f"{rows['test'][3]['id']}.jpg", tmp_path / "elsewhere")
    (tmp_path / "root" / "test_images" / "more").symlink_to(tmp_path / "elsewhere")
    loaded = rocov2(tmp_path / "root").load("test")
    assert ids(loaded) == [row["id"] for k, row in enumerate(rows["test"]) if k not in (0, 3)]
    assert len(loaded.rejected) == 2


def test_a_folder_that_is_a_link_is_named_when_nothing_else_is_there(tmp_path):
    make(tmp_path / "root")
    (tmp_path / "root" / "test_images").rename(tmp_path / "elsewhere")
    (tmp_path / "root" / "test_images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RequestError, match=r"links to folders are not followed \(test_images\): give the real place"):
        rocov2(tmp_path / "root").load("test")
    (tmp_path / "root").rename(tmp_path / "real")
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert len(rocov2(tmp_path / "root").load("train").samples) == 12, "the root itself may be one"


def test_members_that_lead_out_of_an_archive_are_only_names(tmp_path):
    make(tmp_path)
    shutil.rmtree(tmp_path / "test_images")
    with zipfile.ZipFile(tmp_path / "test_images.zip", "w") as archive:
        archive.writestr("../../evil.jpg", encoded(0, 8))
        archive.writestr("test/ROCOv2_2023_test_000001.jpg", encoded(1, 8))
    loaded = rocov2(tmp_path, check="decoded").load("test")
    assert ids(loaded) == ["ROCOv2_2023_test_000001"]
    assert not list(tmp_path.parent.rglob("evil.jpg"))


@pytest.mark.parametrize("fault", ["torn", "encrypted", "method"])
def test_archives_that_cannot_be_read_are_named(fault, tmp_path):
    make(tmp_path, form="zipped")
    path = tmp_path / "test_images.zip"
    if fault == "torn":
        path.write_bytes(path.read_bytes()[:-200])
    elif fault == "method":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr("test/a.jpg", encoded(0, 8))
    else:
        data = bytearray(path.read_bytes())
        place = data.index(b"PK\x01\x02")
        data[place + 8] |= 1
        path.write_bytes(bytes(data))
    with pytest.raises(RequestError, match=r"test_images\.zip: "):
        rocov2(tmp_path).load("test")
    assert len(rocov2(tmp_path).load("train").samples) == 12, "only what is asked for is opened"


def test_damage_inside_an_archive_is_that_of_one_picture(tmp_path):
    make(tmp_path, form="zipped")
    path = tmp_path / "test_images.zip"
    image = rocov2(tmp_path).load("test").samples[2].images[0]
    data = bytearray(path.read_bytes())
    data[image.start + 120] ^= 255
    path.write_bytes(bytes(data))
    loaded = rocov2(tmp_path, check="decoded").load("test")
    assert len(loaded.samples) == 7
    assert "check sum" in next(iter(ledger(loaded).values()))


def test_an_archived_bomb_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", b"\0" * 1_000_000)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        info = archive.infolist()[0]
    place = (tmp_path / "a.zip", "a.jpg", info.header_offset, info.compress_size)
    with pytest.raises(ImageError, match="check sum"):
        ZipImage(*place, 10, info.CRC, info.compress_type).load()
    with pytest.raises(ImageError, match="more than"):
        ZipImage(*place, 1 << 40, info.CRC, info.compress_type).load()


# ---------------------------------------------------------------- workers and memory


def digest_of(image):
    return image.digest(), image.load().getpixel((0, 0))


@pytest.mark.parametrize("form", ["unpacked", "zipped", "parquet"])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_what_the_parent_reads(form, start, tmp_path):
    make(tmp_path, (40, 2, 2), form)
    images = [sample.images[0] for sample in rocov2(tmp_path, cache=str(tmp_path / "cache")).load("train").samples]
    expected = [digest_of(image) for image in images]
    with multiprocessing.get_context(start).Pool(3) as pool:
        assert pool.map(digest_of, images * 3, chunksize=1) == expected * 3
    assert pickle.loads(pickle.dumps(images)) == images


@pytest.mark.parametrize("form", ["unpacked", "zipped", "parquet"])
def test_a_second_fingerprint_opens_no_picture(form, tmp_path, monkeypatch):
    monkeypatch.setattr(files_cache, "SETTLED", 0)
    make(tmp_path / "set", form=form)
    cache = str(tmp_path / "cache")
    first = rocov2(tmp_path / "set", check="decoded", cache=cache).load("test")
    expected = first.fingerprint
    with monkeypatch.context() as patch:
        patch.setattr(type(first.samples[0].images[0]), "open", lambda self: pytest.fail("a picture was opened"))
        again = rocov2(tmp_path / "set", check="decoded", cache=cache).load("test")
        assert again.fingerprint == expected
    opened = []
    with monkeypatch.context() as patch:
        kind = type(first.samples[0].images[0])
        plain = kind.open
        patch.setattr(kind, "open", lambda self: opened.append(self) or plain(self))
        full = rocov2(tmp_path / "set", cache=cache, recheck=True).load("test")
        assert full.fingerprint == expected
    assert len(opened) == 8


def test_changed_bytes_change_the_fingerprint(tmp_path, monkeypatch):
    monkeypatch.setattr(files_cache, "SETTLED", 0)
    rows = make(tmp_path / "set")
    cache = str(tmp_path / "cache")
    before = rocov2(tmp_path / "set", cache=cache).load("test").fingerprint
    path = tmp_path / "set" / "test_images" / "test" / f"{rows['test'][0]['id']}.jpg"
    data = bytearray(path.read_bytes())
    old = path.stat()
    path.unlink()  # it shares its bytes with others by a hard link
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert rocov2(tmp_path / "set", cache=cache).load("test").fingerprint != before


def test_a_run_remembers_its_pictures_and_writes_down_the_ledger(tmp_path, capsys):
    rows = make(tmp_path / "set", (4, 1, 3), "zipped")
    write_csv(
        tmp_path / "set" / "test_captions.csv", ("ID", "Caption"), [(r["id"], r["caption"]) for r in rows["test"][:2]]
    )
    request = ["run", "dataset=rocov2", f"dataset.root={tmp_path / 'set'}", f"results={tmp_path / 'results'}"]
    request += ["lora=none", "threads=1", "generate.max_new_tokens=4", *LIGHT]
    assert main(request) == 0
    (run,) = find_runs(tmp_path / "results")
    assert (run.row["dataset"], run.row["n_ok"], run.row["n_rejected"]) == ("rocov2", 2, 1)
    assert run.manifest["rejected"][0]["reason"] == "a picture without a row in test_captions.csv"
    assert (tmp_path / "results" / "cache" / files_cache.FILE).exists()
    assert main(request) == 0
    assert "done before" in capsys.readouterr().out
