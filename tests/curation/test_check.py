"""`capbench data check`: it finds what was planted and nothing else, goes on where it stopped, and never dies."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from harness import cli, config
from harness.contracts import CapBenchError
from harness.curation import duplicates, pictures
from harness.curation.captions import caption_damage
from harness.curation.duplicates import Picture, duplicate_pictures, similar_groups
from harness.curation.pictures import Facts, perceptual_hash
from harness.curation.problems import SEVERITY, kind_of
from harness.imaging.files import FileImage
from harness.machine import pool
from tests.support import dirty
from tests.support.commands import capbench, clean, command
from tests.support.dirty import source


def check(planted, out, *more, target="tests.support.dirty.Listed", workers=0) -> int:
    return cli.main(["data", "check", *source(planted, out, target), f"out={out}", f"workers={workers}", *more])


def problems(out) -> list[dict[str, str]]:
    with (out / "problems.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def found(out) -> set[tuple[str, str, str]]:
    return {(row["split"], row["id"], row["kind"]) for row in problems(out)}


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


def test_a_dead_worker_is_said():
    with pytest.raises(CapBenchError, match="repeat the command with workers=1") as caught:
        list(pool.in_order(os._exit, [1], 1))
    assert isinstance(caught.value.__cause__, BrokenProcessPool)


def test_the_pool_keeps_order_and_bounds_what_waits():
    taken = []

    def tasks():
        for number in range(40):
            taken.append(number)
            yield number

    results = pool.in_order(abs, tasks(), 2)
    assert next(results) == 0
    assert len(taken) <= 2 * pool.AHEAD + 1
    assert list(results) == list(range(1, 40))


@pytest.mark.skipif(not Path("/proc/self").is_symlink(), reason="asks Linux for the worker's number")
def test_workers_end_with_a_killed_parent():
    script = (
        "import os, time; from harness.machine import pool\n"
        "if __name__ == '__main__':\n"
        "    results = pool.in_order(os.readlink, ['/proc/self'], 1)\n"
        "    print(next(results), flush=True); time.sleep(60)"
    )
    running = subprocess.Popen([sys.executable, "-c", script], env=clean(), stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    worker = Path("/proc") / running.stdout.readline().strip() / "stat"
    assert worker.exists()
    running.kill()
    running.wait()
    until = time.monotonic() + 20
    while state(worker) not in ("Z", "gone") and time.monotonic() < until:
        time.sleep(0.05)
    assert state(worker) in ("Z", "gone")


def state(stat: Path) -> str:
    """R, S, ... Z for a dead one that nobody has waited for."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


# ---------------------------------------------------------------- captions


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("caf\u00c3\u00a9", ["mojibake"]),
        ("3 \u00c2\u00b5m", ["mojibake"]),
        ("it\u00e2\x80\x99s", ["mojibake", "control_character"]),
        ("\u00ef\u00bb\u00bfText", ["mojibake"]),
        (
            "5 \u00b5m, 3 \u00d7 4, \u00b12\u00b0, na\u00efve \u00abl'\u00e9t\u00e9\u00a0\u00bb, \u00c4\u00d6\u00dc",
            [],
        ),
        ("\u0410\u0440\u0442\u0435\u0440\u0438\u044f \u52d5\u8108", []),
        ("a\ufffdb", ["replacement_character"]),
        ("a\x00b", ["control_character"]),
        ("tab\tis fine", []),
        ("a\r\nb", ["line_break"]),
        ("a\x85b", ["line_break"]),
        ("half \ud800", ["unwritable_caption"]),
        ("", ["empty_caption"]),
        ("vein (left).MRI: magnetic", ["glued_text"]),
        ("See Fig.2: left", []),
    ],
)
def test_damage_of_captions(text, kinds):
    assert [kind for kind, _ in caption_damage(text)] == kinds


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_text_breaks_the_check(text):
    for kind, detail in caption_damage(text):
        assert kind in SEVERITY
        assert detail.encode() is not None


@given(st.text(st.characters(min_codepoint=0x2010, max_codepoint=0x2044), min_size=1, max_size=5))
def test_typography_read_as_windows_latin_is_noticed(text):
    wrong = text.encode().decode("cp1252", errors="replace")
    if "\ufffd" not in wrong:
        assert "mojibake" in [kind for kind, _ in caption_damage(f"word {wrong} word")]


def test_reasons_of_ledgers_have_kinds(planted):
    assert kind_of("something new") == "unusable_row"
    table = config.build_node(config.choice("dataset", "table") | {"path": str(planted.path)}, "dataset")
    for entry in table.load("train").rejected:
        assert (kind_of(entry.reason) == "unusable_row") == (entry.id == "holdout"), entry


# ---------------------------------------------------------------- look-alikes


def facts(image: Image.Image) -> Facts:
    class Source:
        def load(self):
            return image

        def digest(self):
            return ""

    found = pictures.facts_of(Source())
    assert isinstance(found, Facts)
    return found


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((48, 48), Image.Resampling.LANCZOS),
        lambda image: image.resize((300, 300), Image.Resampling.BICUBIC),
        lambda image: ImageEnhance.Contrast(image).enhance(0.8),
        lambda image: ImageEnhance.Brightness(image).enhance(0.9),
        lambda image: image.convert("L").convert("RGB"),
    ],
)
def test_a_changed_copy_is_recognised(change):
    originals = [dirty.body(seed) for seed in range(400, 412)]
    together = [facts(image) for image in originals] + [facts(change(image)) for image in originals]
    assert similar_groups(together) == [[place, place + 12] for place in range(12)]


def test_other_pictures_are_not():
    phantom = config.build_node(config.choice("dataset", "phantom"), "dataset")
    drawn = [sample.images[0].load() for sample in phantom.load("test").samples[:60]]
    assert similar_groups([facts(image) for image in [*drawn, *(dirty.body(seed) for seed in range(500, 540))]]) == []


def test_one_half_of_the_frequencies_lies_above_the_median():
    for seed in range(20):
        grey = np.random.default_rng(seed).uniform(0, 255, (32, 32)).astype(np.float32)
        assert 31 <= int(np.unpackbits(perceptual_hash(grey)).sum()) <= 33


@given(st.integers(0, 2**32), st.integers(2, 60))
@settings(max_examples=40, deadline=None)
def test_the_search_finds_all_pairs_that_a_full_comparison_finds(seed, count):
    """Few distinct bits, so that buckets are crowded and distances of 0 to 6 are common."""
    rng = np.random.default_rng(seed)
    base = int(rng.integers(0, 2**63))
    hashes = []
    for _ in range(count):
        value = base
        for bit in rng.integers(0, 64, int(rng.integers(0, 4))):
            value ^= 1 << int(bit)
        hashes.append(value)
    array = np.array(hashes, np.uint64)
    close = [(int(a), int(b)) for left, right in duplicates._close(array) for a, b in zip(left, right, strict=True)]
    expected = {
        (a, b)
        for a in range(count)
        for b in range(a + 1, count)
        if (hashes[a] ^ hashes[b]).bit_count() <= duplicates.DISTANCE
    }
    assert sorted(tuple(sorted(pair)) for pair in close) == sorted(expected), "each of them once"


def test_the_kept_picture_is_of_the_most_protected_split():
    same = facts(dirty.body(1))
    members = [Picture("train", "a", same), Picture("valid", "b", same), Picture("test", "c", same)]
    named = {(p.split, p.id, p.kind, p.detail) for p in duplicate_pictures(members)}
    kind, detail = "same_image_in_other_split", "the same pixels as test:c"
    assert named == {("train", "a", kind, detail), ("valid", "b", kind, detail)}


def test_two_pictures_of_one_row_may_be_the_same():
    same = facts(dirty.body(1))
    assert list(duplicate_pictures([Picture("test", "a", same), Picture("test", "a", same)])) == []


# ---------------------------------------------------------------- fuzz


def fuzz(folder: Path, cases: int, seed: int) -> tuple[set[str], set[str]]:
    """Pictures with changed bytes in a table with changed bytes: every row is a sample or stands in problems.csv.

    The ids of the bad ones and of the samples.
    """
    rng = random.Random(seed)
    planted = dirty.make(folder)
    sound = [row for row in planted.rows if row[0].endswith(("_train", "_valid", "_test"))]
    lines = []
    for case in range(cases):
        name = sound[case % len(sound)][1]
        data = mutated((planted.folder / name).read_bytes(), rng)
        (planted.folder / f"fuzz{case}{Path(name).suffix}").write_bytes(data)
        lines.append(f"fuzz{case},fuzz{case}{Path(name).suffix},Caption {case}.,train,CT,C1")
    planted.path.write_text("\n".join(["id,image,caption,split,modality,concepts", *lines]))
    out, listed = folder / "out", folder / "clean.csv"
    table = "harness.datasets.table.Table"
    assert check(planted, out, f"write_clean_list={listed}", "splits=train", target=table) == 1
    bad = {row["id"] for row in problems(out) if row["severity"] == "error"}
    kept = {line.split(",")[1] for line in listed.read_text().splitlines()[1:]}
    for name in kept:
        file = next(planted.folder.glob(f"{name}.*"))
        assert FileImage(file).load().mode == "RGB"
    return bad, kept


def complete(found: tuple[set[str], set[str]], cases: int) -> bool:
    """Whether each case is one or the other, and enough were damaged to say something."""
    bad, kept = found
    return bad | kept == {f"fuzz{case}" for case in range(cases)} and not bad & kept and len(bad) > cases / 10


def fuzz_table(folder: Path, cases: int, seed: int) -> set[int]:
    """A table with changed bytes: the request is refused in one line, or the rows are checked. The exit codes."""
    rng = random.Random(seed)
    codes = set()
    for case in range(cases):
        place = folder / str(case)
        if case == 0:
            dirty.make(place)
            whole = (place / "dirty" / "table.csv").read_bytes()
        root = folder / "0" / "dirty"
        (root / "table.csv").write_bytes(mutated(whole, rng))
        words = [f"dataset.path={root / 'table.csv'}", f"out={folder / 'out'}", "workers=0"]
        codes.add(cli.main(["data", "check", "table", *words]))
    return codes


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, cut off, doubled or moved."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        place = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0:
                del changed[place : place + rng.randrange(1, 40)]
            case 1:
                changed[place:place] = rng.randbytes(rng.randrange(1, 20))
            case 2:
                changed = changed[: max(1, place)]
            case 3:
                changed[place:place] = rng.choice([b'"', b"\n", b"\r", b",", b"\x00", b"\xff", b"\xed\xa0\x80", b"\t"])
            case _ if place < len(changed):
                changed[place] = rng.randrange(256)
    return bytes(changed)


def test_a_hundred_damaged_pictures(tmp_path):
    assert complete(fuzz(tmp_path, 100, 0), 100)


def test_damaged_tables(tmp_path, capsys):
    codes = fuzz_table(tmp_path, 8, 0)
    assert codes <= {0, 1, 2}
    assert 1 in codes


@pytest.mark.long
def test_thousands_of_damaged_pictures_and_tables(tmp_path):
    for seed in range(1, 5):
        assert complete(fuzz(tmp_path / f"pictures{seed}", 500, seed), 500)
    codes = fuzz_table(tmp_path / "tables", 300, 1)
    assert codes <= {0, 1, 2}
    assert 1 in codes
