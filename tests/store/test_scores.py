"""`capbench score captions=FILE references=FILE`: pictures, several protocols, the official form, odd texts."""

import csv
import json

import pandas as pd
import pytest

from harness.cli import main
from tests.support.metric_data import SAMPLES

TEXTS = {
    "plain": "CT of the chest.",
    "empty": "",
    "blank": "  \t ",
    "long": "word " * 5000,
    "emoji": "🫁 چست 胸部 CT",
    "nul": "a\x00b",
    "quotes": 'a "quoted", text\nwith a line break',
}


def write(path, rows, header=("ID", "Caption"), encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def score(tmp_path, captions, references, *overrides):
    files = [f"captions={captions}", f"references={references}", f"results={tmp_path / 'scored'}"]
    return main(["score", *files, "threads=1", *overrides])


def table(tmp_path):
    return pd.read_csv(tmp_path / "scored" / "scores.csv").set_index(["protocol", "metric"])


@pytest.fixture
def phantoms(tmp_path):
    """Six pictures with their captions as references."""
    folder = tmp_path / "images"
    folder.mkdir()
    for sample in SAMPLES[:6]:
        sample.images[0].load().save(folder / f"{sample.id}.png")
    rows = [(sample.id, sample.caption) for sample in SAMPLES[:6]]
    return folder, rows, write(tmp_path / "references.csv", rows)


def test_all_six_columns_with_pictures(phantoms, tmp_path):
    folder, rows, references = phantoms
    assert score(tmp_path, write(tmp_path / "c.csv", rows), references, f"images={folder}") == 0
    found = table(tmp_path).loc["embedded"]
    assert found["value"].notna().all()
    assert (found["n"] == 6).all()
    assert found.loc["rouge", "value"] == 1
    wrong = [(name, rows[place - 1][1]) for place, (name, _) in enumerate(rows)]
    assert score(tmp_path, write(tmp_path / "w.csv", wrong), references, f"images={folder}") == 0
    assert (table(tmp_path).loc["embedded", "value"] < found["value"]).all()


def test_pictures_that_are_missing_or_torn_are_failures_with_a_reason(phantoms, tmp_path):
    folder, rows, references = phantoms
    files = sorted(folder.iterdir())
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:200])
    assert score(tmp_path, write(tmp_path / "c.csv", rows), references, f"images={folder}") == 0
    assert (table(tmp_path)["n"] == 4).all()
    assert (table(tmp_path)["n_failed"] == 2).all()
    scored = pd.read_csv(next((tmp_path / "scored" / "scores").glob("similarity-*.csv")))
    reasons = scored["reason"].dropna().tolist()
    assert len(reasons) == 2
    assert "no picture of this id" in reasons


def test_without_pictures_their_column_alone_is_blank(phantoms, tmp_path, capsys):
    _, rows, references = phantoms
    assert score(tmp_path, write(tmp_path / "c.csv", rows), references) == 0
    found = table(tmp_path).loc["embedded"]
    assert found["value"].isna().to_dict() == {
        "similarity": True, "bertscore": False, "rouge": False, "bleurt": False, "umls_f1": False,
        "alignscore": False, "relevance": True, "factuality": False, "overall": True,
    }  # fmt: skip
    assert "images=" in capsys.readouterr().out


def test_two_protocols_in_one_pass_with_the_official_form(phantoms, tmp_path, capsys):
    folder, rows, references = phantoms
    arguments = [f"images={folder}", "protocol=embedded,imageclef2023"]
    assert score(tmp_path, write(tmp_path / "c.csv", rows), references, *arguments) == 0
    found = table(tmp_path)
    assert set(found.index.get_level_values(0)) == {"embedded", "imageclef2023"}
    assert "hf download microsoft/deberta-xlarge-mnli" in capsys.readouterr().out
    assert pd.isna(found.loc[("imageclef2023", "bertscore"), "value"])
    assert found.loc[("imageclef2023", "rouge"), "value"] == 1
    official = json.loads((tmp_path / "scored" / "scores-imageclef2023.json").read_text())
    assert official == {"score": None, "score_secondary": 1.0}


def test_odd_texts_are_scored_or_fail_with_a_reason(tmp_path):
    rows = [(name, text.replace("\x00", "") if name == "nul" else text) for name, text in TEXTS.items()]
    odd = tmp_path / "odd.jsonl"
    odd.write_text("".join(json.dumps({"id": name, "caption": text}) + "\n" for name, text in TEXTS.items()))
    assert score(tmp_path, odd, write(tmp_path / "r.csv", rows)) == 0
    found = table(tmp_path).loc["embedded"]
    assert found.loc["bertscore", "n"] == len(TEXTS)
    assert found.loc["bertscore", "n_empty"] == 1
    assert found.loc["bertscore", "n_truncated"] == 1
    samples = pd.read_csv(tmp_path / "scored" / "samples.csv").set_index("id")
    both_empty = samples.loc["empty", ["bertscore", "rouge", "bleurt", "umls_f1", "alignscore"]]
    assert (both_empty == 1).all()


def test_order_bom_and_header_do_not_matter(phantoms, tmp_path):
    folder, rows, references = phantoms
    captions = write(tmp_path / "c.csv", rows[::-1], header=("image_id", " CAPTION "), encoding="utf-8-sig")
    assert score(tmp_path, captions, references, f"images={folder}") == 0
    assert table(tmp_path).loc[("embedded", "rouge"), "value"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, rows[0]], "every id once"),
        (lambda rows: [*rows, ("unknown", "x")], "are not in the references, first unknown"),
        (lambda rows: [], "expected captions, got no row"),
        (lambda rows: [(*rows[0], "more"), *rows[1:]], "expected 2 cells, got 3"),
    ],
)
def test_wrong_files_are_refused_with_the_place(phantoms, tmp_path, capsys, change, message):
    _, rows, references = phantoms
    assert score(tmp_path, write(tmp_path / "c.csv", change(rows)), references) == 2
    assert message in capsys.readouterr().err


def test_a_reference_without_caption_is_a_failure(phantoms, tmp_path, capsys):
    folder, rows, references = phantoms
    assert score(tmp_path, write(tmp_path / "c.csv", rows[1:]), references, f"images={folder}") == 1
    assert (table(tmp_path)["n"] == 5).all()
    assert "1 of 6 references have no caption" in capsys.readouterr().err


def test_a_folder_of_pictures_that_is_none_is_refused(phantoms, tmp_path, capsys):
    _, rows, references = phantoms
    assert score(tmp_path, write(tmp_path / "c.csv", rows), references, "images=nowhere") == 2
    assert "images=nowhere: expected a folder" in capsys.readouterr().err
