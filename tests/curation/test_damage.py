"""`capbench data check` never dies: damaged pictures and tables by the hundred."""

import random
from pathlib import Path

import pytest

from harness import cli
from harness.imaging.files import FileImage
from tests.support import dirty
from tests.support.data_check import check, problems

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
