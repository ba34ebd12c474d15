"""`capbench data check`: it finds what was planted and nothing else, and goes on where it stopped."""

import csv
import os
import signal
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from harness import cli
from harness.curation import pictures
from harness.curation.problems import SEVERITY
from tests.support import dirty
from tests.support.commands import capbench, clean, command
from tests.support.data_check import check, found, problems


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return dirty.make(tmp_path_factory.mktemp("planted"))


# ---------------------------------------------------------------- what is found


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_exactly_what_was_planted(tmp_path, suffix, capsys):
    planted = dirty.make(tmp_path, suffix)
    assert check(planted, tmp_path / "out", f"write_clean_list={tmp_path / 'clean.csv'}") == 1
    assert found(tmp_path / "out") == planted.problems
    rows = problems(tmp_path / "out")
    assert len(rows) == len(planted.problems), "each of them once"
    assert all(row["severity"] == SEVERITY[row["kind"]] and row["detail"] for row in rows)
    shown = capsys.readouterr().out
    assert "missing_image" in shown
    assert "Ultrasound" in shown
    with (tmp_path / "clean.csv").open(encoding="utf-8", newline="") as file:
        kept = [(row["split"], row["id"]) for row in csv.DictReader(file)]
    bad = {(split, name) for split, name, kind in planted.problems if SEVERITY[kind] == "error"}
    # the second use of an id is an error, and no list of ids can tell it from the first
    expected = [(row[3], row[0]) for row in planted.rows if row[3] in ("train", "valid", "test")]
    assert sorted(kept) == sorted(pair for pair in expected if pair not in bad)


def test_a_sound_dataset_has_no_problem(tmp_path):
    assert cli.main(["data", "check", "phantom", *SMALL, f"out={tmp_path}", "workers=0"]) == 0
    assert {row["severity"] for row in problems(tmp_path)} <= {"note"}


SMALL = ["dataset.train=20", "dataset.valid=5", "dataset.test=5"]


def test_the_fixture_has_all_kinds_but_those_of_other_forms(planted):
    kinds = {kind for _, _, kind in planted.problems}
    assert set(SEVERITY) - kinds == {"unusable_split", "unread_split", "unwritable_caption", "concepts_without_row"}


def test_workers_and_repetition_change_nothing(planted, tmp_path):
    outs = [tmp_path / name for name in ("alone", "two")]
    for out, workers in zip(outs, (0, 2), strict=True):
        assert check(planted, out, target="harness.datasets.table.Table", workers=workers) == 1
    first = (outs[0] / "problems.csv").read_bytes()
    assert first == (outs[1] / "problems.csv").read_bytes()
    assert check(planted, outs[0], target="harness.datasets.table.Table") == 1
    assert first == (outs[0] / "problems.csv").read_bytes()


def test_a_split_that_is_not_there(tmp_path):
    for number in range(3):
        dirty.body(number).save(tmp_path / f"{number}.png")
    lines = [f"{number}.png,Caption {number}.,test,CT" for number in range(3)]
    (tmp_path / "t.csv").write_text("\n".join(["image,caption,split,modality", *lines]))
    arguments = ["data", "check", "table", f"dataset.path={tmp_path / 't.csv'}", f"out={tmp_path / 'out'}", "workers=0"]
    assert cli.main(arguments) == 0
    assert found(tmp_path / "out") == {("train", "", "unread_split"), ("valid", "", "unread_split")}
    assert cli.main([*arguments, "splits=train,test"]) == 1
    assert found(tmp_path / "out") == {("train", "", "unusable_split")}
    assert cli.main([*arguments, "splits=test"]) == 0
    assert found(tmp_path / "out") == set()
    assert cli.main([*arguments, "splits=valid"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data"], "expected check or prepare"),
        (["data", "look", "phantom"], "data look: expected check or prepare"),
        (["data", "check"], "expected the name of a dataset"),
        (["data", "check", "workers=1"], "expected the name of a dataset"),
        (["data", "check", "phantoms"], "did you mean 'phantom'?"),
        (["data", "check", "phantom", "splits=tests"], "expected names of train, valid, test, got 'tests'"),
        (["data", "check", "phantom", "workers=-1"], "workers: expected 0 or more, got -1"),
        (["data", "check", "phantom", "worker=1"], "worker: no such key"),
    ],
)
def test_wrong_requests(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    assert message in capsys.readouterr().err


# ---------------------------------------------------------------- going on


def test_what_is_known_is_not_decoded_again(planted, tmp_path, monkeypatch):
    looks = []
    original = pictures.facts_of

    def counted(image):
        looks.append(image)
        if len(looks) == 30:
            raise KeyboardInterrupt
        return original(image)

    monkeypatch.setattr(pictures, "facts_of", counted)
    monkeypatch.setattr("harness.curation.check.CHUNK", 8)
    table = "harness.datasets.table.Table"
    assert check(planted, tmp_path / "out", target=table) == 130
    assert not (tmp_path / "out" / "problems.csv").exists()
    assert check(planted, tmp_path / "out", target=table) == 1
    damaged = {name for _, name, kind in planted.problems if kind in ("undecodable_image", "decompression_bomb")}

    def sound() -> list[str]:
        """Damage may lie with the disk, so that it is looked at each time."""
        return [image.path.name for image in looks if image.path.name not in damaged]

    assert len(sound()) - len(set(sound())) <= 8, "no more than one chunk was done twice"
    done = sound()
    assert check(planted, tmp_path / "out", target=table) == 1
    assert sound() == done


def test_a_changed_picture_is_looked_at_again(tmp_path):
    planted = dirty.make(tmp_path)
    check(planted, tmp_path / "out")
    (planted.folder / "plain_train.png").write_bytes((planted.folder / "plain_test.png").read_bytes())
    check(planted, tmp_path / "out")
    assert found(tmp_path / "out") - planted.problems == {("train", "plain_train", "same_image_in_other_split")}


@pytest.mark.slow
def test_a_killed_check_goes_on(tmp_path):
    for number in range(150):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((500, 500), Image.Resampling.BICUBIC).save(tmp_path / f"{number}.jpg")
    lines = [f"{number}.jpg,Caption {number}.,test,CT" for number in range(150)]
    (tmp_path / "t.csv").write_text("\n".join(["image,caption,split,modality", *lines]))
    words = ["data", "check", "table", f"dataset.path={tmp_path / 't.csv'}", f"out={tmp_path / 'out'}", "workers=1"]
    running = subprocess.Popen(command(words), env=clean(), cwd=tmp_path, start_new_session=True)
    until = time.monotonic() + 60
    while not (tmp_path / "out" / "cache.sqlite").exists() and running.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "out" / "problems.csv").exists()
    done = capbench([*words, "splits=test"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert found(tmp_path / "out") == set()
