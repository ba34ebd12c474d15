"""What people really feed in, through the command: a clear line or a ledger entry each, nothing lost, no traceback."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from harness.cli import main
from harness.store.runs import find_runs
from tests.support.commands import LIGHT

QUICK = ["model=cnn_transformer", "lora=none", "generate.max_new_tokens=4", "threads=1"]
TRICKY = 'Says "mass",\nthen a second line; = no formula'


def write_table(path: Path, rows, header=("id", "image", "caption", "split")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def run(table: Path, results: Path, protocol: Sequence[str] = LIGHT) -> int:
    return main(["run", "dataset=table", f"dataset.path={table}", f"results={results}", *QUICK, *protocol])


@pytest.fixture
def dirty(tmp_path) -> Path:
    for name in ("a", "b", "c", "d"):
        Image.effect_noise((48, 40), 60).convert("RGB").save(tmp_path / f"{name}.jpg")
    whole = (tmp_path / "d.jpg").read_bytes()
    (tmp_path / "d.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no picture")
    rows = [
        ("1", "a.jpg", "A good row.", "test"),
        ("2", "missing.jpg", "Its picture is missing.", "test"),
        ("3", "d.jpg", "Its picture is truncated.", "test"),
        ("4", "text.png", "Its picture is a text.", "test"),
        ("1", "b.jpg", "Its id was there before.", "test"),
        ("5", "b.jpg", "   ", "test"),
        ("6", "../outside.jpg", "Its path leaves the folder.", "test"),
        ("7", "c.jpg", TRICKY, "test"),
    ]
    return write_table(tmp_path / "dirty.csv", rows)


def test_dirty_rows_go_to_the_ledger_and_the_good_ones_go_on(dirty, tmp_path, capsys):
    results = tmp_path / "results"
    assert run(dirty, results) == 0
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    found = find_runs(results)[0]
    ledger = {entry["id"]: entry["reason"] for entry in found.manifest["rejected"]}
    assert len(found.manifest["rejected"]) == 6
    assert set(ledger) >= {"1", "2", "3", "4", "5", "6"}
    for name, word in (("2", "missing.jpg"), ("3", "truncated"), ("5", "empty"), ("1", "line")):
        assert word in ledger[name], ledger[name]
    assert found.row["n_requested"] == found.row["n_ok"] == 2
    assert "rejected" in captured.err
    assert [row.reference for row in found.rows] == ["A good row.", TRICKY]
    samples = pd.read_csv(found.folder / "samples.csv")
    assert list(samples["reference"]) == ["A good row.", TRICKY]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"image,text\na.jpg,x\n", ["dataset.caption_column", "image, text"]),
        (b"image,caption\na.jpg,caf\xe9\n", ["UTF-8", "byte"]),
        (b"", ["table.csv"]),
        (b"image,caption\n", ["row"]),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(content, words, tmp_path, capsys):
    table = tmp_path / "table.csv"
    table.write_bytes(content)
    assert run(table, tmp_path / "results") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for word in words:
        assert word in error


def test_a_table_without_any_usable_row_is_refused(tmp_path, capsys):
    table = write_table(tmp_path / "table.csv", [("1", "gone.jpg", "Nothing.", "test")])
    assert run(table, tmp_path / "results") == 2
    error = capsys.readouterr().err
    assert "no usable" in error
    assert "gone.jpg" in error


def test_a_results_folder_that_cannot_be_made_is_refused(dirty, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(dirty, tmp_path / "file" / "results") == 2
    assert "choose another" in capsys.readouterr().err


def test_a_corrupt_manifest_is_named_and_not_overwritten(dirty, tmp_path, capsys):
    results = tmp_path / "results"
    assert run(dirty, results) == 0
    manifest = find_runs(results)[0].folder / "manifest.json"
    manifest.write_text(manifest.read_text()[:100])
    torn = manifest.read_text()
    assert run(dirty, results) == 1
    assert "move the file away" in capsys.readouterr().err
    assert manifest.read_text() == torn
    manifest.unlink()
    assert run(dirty, results) == 0  # the captions were kept


def test_a_corrupt_score_record_is_named(dirty, tmp_path, capsys):
    results = tmp_path / "results"
    assert run(dirty, results, protocol=()) == 0
    record = find_runs(results)[0].folder / "scores" / "embedded.json"
    record.write_text("{")
    assert main(["leaderboard", f"results={results}"]) == 1
    error = capsys.readouterr().err
    assert "embedded.json" in error
    record.unlink()
    assert main(["score", f"results={results}"]) == 0


def test_lost_scores_are_made_again(dirty, tmp_path):
    results = tmp_path / "results"
    assert run(dirty, results, protocol=()) == 0
    board = (results / "leaderboard.csv").read_bytes()
    for path in (find_runs(results)[0].folder / "scores").glob("rouge1-*.csv"):
        path.unlink()
    assert main(["leaderboard", f"results={results}"]) == 1
    assert main(["score", f"results={results}"]) == 0
    assert (results / "leaderboard.csv").read_bytes() == board
