"""Real DICOM pictures through the whole line, and caption files scored without any run."""

import csv
import shutil
from pathlib import Path

import pandas as pd
import pytest
from pydicom.data import get_testdata_file

from harness.cli import main
from tests.support.commands import ROOT

SMALL = ["train.max_steps=4", "train.batch_size=4", "generate.max_new_tokens=16", "threads=1"]


@pytest.fixture
def dicom_table(tmp_path) -> Path:
    """A folder as a user would have it: DICOM files and a table of captions beside them."""
    table = tmp_path / "captions.csv"
    shutil.copy(ROOT / "tests" / "data" / "dicom_captions.csv", table)
    with table.open(encoding="utf-8", newline="") as file:
        names = [row["image"] for row in csv.DictReader(file)]
    for name in names:
        found = get_testdata_file(name, download=False)
        assert found, name
        shutil.copy(str(found), tmp_path / name)
    return table


@pytest.mark.slow
def test_dicom_pictures_from_fit_to_leaderboard(dicom_table, tmp_path):
    results = tmp_path / "results"
    arguments = ["dataset=table", f"dataset.path={dicom_table}", f"results={results}", *SMALL]
    assert main(["run", "-m", "model=smolvlm", "lora=none,targeted", *arguments]) == 0
    board = pd.read_csv(results / "leaderboard.csv")
    assert set(board["strategy"]) == {"none", "targeted"}
    samples = pd.read_csv(next(iter((results / "runs").glob("*/samples.csv"))))
    assert set(samples["modality"]) <= {"CT", "MRI", "Ultrasound"}
    assert samples["bertscore"].notna().all()


ROWS = [
    ("a", "Chest X-ray showing a right pleural effusion (green arrow)."),
    ("b", "Axial CT of the abdomen, with a 3 cm cyst in the left kidney"),
    ("c", 'Ultrasound: "gallstones"\nwith acoustic shadowing, two of them.'),
    ("d", "MRI of the brain."),
]


def write(path: Path, rows, header=("ID", "Caption")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def score(captions: Path, references: Path, results: Path) -> int:
    return main(["score", f"captions={captions}", f"references={references}", f"results={results}", "threads=1"])


def test_caption_files_are_scored_without_a_run(tmp_path):
    references = write(tmp_path / "references.csv", ROWS)
    edited = [(name, text.replace("right", "left").replace("cyst", "mass")) for name, text in ROWS]
    captions = write(tmp_path / "captions.csv", edited)
    assert score(references, references, tmp_path / "same") == 0
    assert score(captions, references, tmp_path / "edited") == 0
    same, other = (
        pd.read_csv(tmp_path / folder / "scores.csv").set_index("metric")["value"] for folder in ("same", "edited")
    )
    assert same["rouge"] == pytest.approx(1)
    assert same["bertscore"] == pytest.approx(1)
    assert same["umls_f1"] == pytest.approx(1)
    for metric in ("rouge", "bertscore", "umls_f1"):
        assert other[metric] < same[metric]
    samples = pd.read_csv(tmp_path / "edited" / "samples.csv")
    assert list(samples["id"]) == ["a", "b", "c", "d"]
    assert samples.loc[2, "caption"] == edited[2][1]


def test_a_reference_without_caption_counts_as_failed(tmp_path, capsys):
    references = write(tmp_path / "references.csv", ROWS)
    captions = write(tmp_path / "captions.csv", ROWS[:3])
    assert score(captions, references, tmp_path / "results") == 1
    assert "1 of 4 references have no caption" in capsys.readouterr().err
    scores = pd.read_csv(tmp_path / "results" / "scores.csv")
    assert set(scores["n"]) == {3}
    assert set(scores["n_failed"]) == {1}


def test_formulas_in_captions_do_not_run_in_a_spreadsheet(tmp_path):
    references = write(tmp_path / "references.csv", ROWS)
    captions = write(tmp_path / "captions.csv", [("a", "=1+1"), *ROWS[1:]])
    assert score(captions, references, tmp_path / "results") == 0
    assert pd.read_csv(tmp_path / "results" / "samples.csv").loc[0, "caption"] == "'=1+1"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["got nothing"]),
        (b"ID,Caption\n", ["got no row"]),
        (b"ID,Text\na,x\n", ["caption", "id, text"]),
        (b"ID,Caption\na,x\na,y\n", ["line 3", "a was there before"]),
        (b"ID,Caption\na,x, y\n", ["line 2", "expected 2 cells", "double quotes"]),
        (b"ID,Caption\na,caf\xe9\n", ["UTF-8", "byte 16"]),
        (b"ID,Caption\nz,x\n", ["not in the references", "first z"]),
    ],
)
def test_a_wrong_caption_file_is_refused_in_one_line(content, words, tmp_path, capsys):
    references = write(tmp_path / "references.csv", ROWS)
    captions = tmp_path / "captions.csv"
    captions.write_bytes(content)
    assert score(captions, references, tmp_path / "results") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for word in words:
        assert word in error


def test_header_variants_are_read(tmp_path):
    references = write(tmp_path / "references.csv", ROWS)
    tabbed = tmp_path / "captions.tsv"
    text = "".join(f"{name}\t{text}\n" for name, text in ROWS if "\n" not in text)
    tabbed.write_text(f"\ufeffImageCLEFmedical 2025 ID\t Caption \n{text}", encoding="utf-8")
    assert score(tabbed, references, tmp_path / "results") == 1
    assert len(pd.read_csv(tmp_path / "results" / "samples.csv")) == 4


def test_a_folder_of_runs_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "results" / "runs").mkdir(parents=True)
    references = write(tmp_path / "references.csv", ROWS)
    assert score(references, references, tmp_path / "results") == 2
    assert "holds runs" in capsys.readouterr().err
