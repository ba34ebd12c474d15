"""Submission files: the rules of each edition one by one, what is written always passes, and the command."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.cli import main
from harness.scoring.imageclef import check, compose, one_line
from harness.store import Journal, JournalRow, write_json
from harness.store.runs import find_runs
from tests.support.commands import LIGHT

FORMS = ["imageclef2026", "imageclef2025", "imageclef2023"]
IDS = ["a_1", "a_2", "a_3"]
GOOD = 'ID,Caption\na_1,"CT, axial"\na_2,X-ray\na_3,""\n'


def problems(text: str | bytes, form: str = "imageclef2026", ids=IDS, ordered: bool = True) -> list[tuple[int, str]]:
    content = text.encode() if isinstance(text, str) else text
    return [(v.line, v.text) for v in check(content, ids, form, ordered=ordered).violations]


# ---------------------------------------------------------------- rules


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", [GOOD, GOOD.replace("\n", "\r\n"), GOOD.rstrip("\n")])
def test_a_right_file_passes(form, text):
    checked = check(text.encode(), IDS, form)
    assert (checked.rows, checked.empty, checked.violations) == (3, 1, [])


@pytest.mark.parametrize(
    ("change", "line", "word", "forms"),
    [
        (("X-ray", "caf\xe9"), 3, "UTF-8", FORMS),
        (("ID,", "\ufeffID,"), 1, "byte order mark", FORMS[:2]),
        (("ID,Caption", "id,Caption"), 1, "header", FORMS[:1]),
        (("ID,Caption", "ID,Caption,Score"), 1, "header", FORMS[:1]),
        (("ID,Caption", "Image,Caption"), 1, "header", FORMS[:2]),
        (("ID,Caption\n", ""), 1, "header", FORMS[:2]),
        (("a_2", "\na_2"), 3, "blank line", FORMS),
        (('""\n', '""\n\n'), 5, "blank line", FORMS),
        (('""\n', '""\n  \n'), 5, "blank line", FORMS[:1]),
        (("axial", "one\n\ntwo"), 3, "blank line", FORMS[:1]),
        (("axial", "one\ntwo, x, y"), 3, "line break", FORMS[:1]),
        (("a_2,X-ray", "a_2"), 3, "one cell", FORMS),
        (('"CT, axial"', "CT, axial"), 2, "double quotes", FORMS),
        (('"CT, axial"', '"CT", axial'), 2, "double quotes", FORMS),
        (('"CT, axial"', '"a" b, c'), 2, "double quotes", FORMS),
        (('"CT, axial"', ' "a, b"'), 2, "double quotes", FORMS),
        (("a_2,", "a_2 ,"), 3, "blanks round", FORMS),
        (("a_2,", "a_1,"), 3, "before, in line 2", FORMS),
        (("a_2,", "b_2,"), 3, "not one of the ground truth", FORMS),
        (("a_2,", "b_2,"), 4, "1 ids have no row up to the end: 'a_2'", FORMS),
        (('a_3,""\n', ""), 3, "'a_3'", FORMS),
        (("a_2", "IDa_2"), 3, "taken for a header", FORMS[2:]),
        (("a_2,X-ray", f"a_2,{'x' * 200_000}"), 3, "cannot be read as csv", FORMS),
    ],
)
def test_each_rule_by_line_and_edition(change, line, word, forms):
    wrong = GOOD.replace(*change, 1)
    assert wrong != GOOD
    content = wrong.encode("latin-1" if word == "UTF-8" else "utf-8")
    for form in FORMS:
        found = problems(content, form)
        assert any(at == line and word in text for at, text in found) == (form in forms), (form, found)


def test_the_caption_that_is_cut_is_shown():
    (found,) = problems("ID,Caption\na_1,CT, axial, big\na_2,x\na_3,y\n", "imageclef2025")
    assert found == (2, "the caption is cut before ' axial': put a caption in double quotes")


def test_the_order_counts_in_2026_where_it_is_known():
    swapped = "ID,Caption\na_1,x\na_3,y\na_2,z\n"
    ((line, text),) = problems(swapped)
    assert (line, "expected the id 'a_2', got 'a_3'" in text) == (3, True)
    assert problems(swapped, ordered=False) == problems(swapped, "imageclef2025") == []


def test_ids_that_are_not_known_are_not_compared():
    assert problems("ID,Caption\nx,a\ny,b\n", ids=None) == []
    assert problems("ID,Caption\nx,a\nx,b\n", ids=None) == [(3, "the id 'x' was there before, in line 2")]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("content", [b"", b"\n", b"ID,Caption\n"])
def test_a_file_without_captions_does_not_pass(form, content):
    assert any("no row with a caption" in text for _, text in problems(content, form, ids=None))


def test_every_problem_is_reported_not_just_the_first():
    found = problems("ID,caption\na_1,one, two\nb,x\na_1,y\n")
    assert [line for line, _ in found] == [1, 2, 3, 4, 4]


# ---------------------------------------------------------------- what is written


TRICKY = st.one_of(
    st.text(max_size=40),
    st.text(alphabet=' ,"\n\r\x0b\x85\u2028\tIDé🩻\u05d0\u202e\x00a', max_size=12),
    st.sampled_from(
        ['Says "mass", then', "one\n\ntwo", "a\r\nb, c, d", "ورم في الكبد, كبير", "🩻, \u200f", '"', " ", "=1+1"]
    ),
)


@settings(max_examples=300, deadline=None)
@given(captions=st.lists(TRICKY, min_size=1, max_size=6), form=st.sampled_from(FORMS))
@example(captions=["\n", "a,\n,b,c"], form="imageclef2026")
@example(captions=["\n", "a,\n,b,c"], form="imageclef2025")
def test_what_is_written_passes_and_reads_back_equal(captions, form):
    rows = [(f"img_{number}", caption) for number, caption in enumerate(captions)]
    text = compose(rows, form)
    checked = check(text.encode(), [name for name, _ in rows], form)
    assert checked.violations == []
    assert checked.rows == len(rows)
    back = [tuple(row) for row in csv.reader(io.StringIO(text, newline=""))]
    assert back == [("ID", "Caption"), *((name, one_line(caption, form)) for name, caption in rows)]


@given(caption=TRICKY)
def test_a_caption_changes_only_in_its_line_breaks_and_only_for_2026(caption):
    assert one_line(caption, "imageclef2025") == caption
    assert len(one_line(caption, "imageclef2026").splitlines()) <= 1
    assert one_line(caption, "imageclef2026").split() == caption.split()


# ---------------------------------------------------------------- the command


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


def a_run(results: Path, captions: dict[str, str | None], run_id: str = "12345e6789", **manifest) -> Path:
    folder = results / "runs" / f"smolvlm-targeted-{run_id}"
    rows = [JournalRow.of_texts(name, "x", caption) for name, caption in captions.items()]
    Journal(folder / "captions.jsonl").append(rows)
    status = "partial" if None in captions.values() else "ok"
    write_json(folder / "manifest.json", {"identity": {}, "status": status, "row": {"run_id": run_id}, **manifest})
    return folder


def test_check_prints_lines_and_returns_1(tmp_path, capsys):
    references = write(tmp_path / "references.csv", "ID,Caption\na_1,r\na_2,r\na_3,r\n")
    good = write(tmp_path / "good.csv", GOOD)
    assert main(["submission", "check", f"captions={good}", f"references={references}"]) == 0
    assert "3 captions, 1 of them empty, which score 0; passes the rules of imageclef2026" in capsys.readouterr().out
    bad = write(tmp_path / "bad.csv", GOOD.replace('"CT, axial"', "CT, axial"))
    for form in FORMS:
        assert main(["submission", "check", f"captions={bad}", f"references={references}", f"format={form}"]) == 1
        assert "line 2:" in capsys.readouterr().out


def test_check_shows_twenty_problems_and_counts_the_others(tmp_path, capsys):
    bad = write(tmp_path / "bad.csv", "ID,Caption\n" + "".join(f"i{n},one, two\n" for n in range(50)))
    assert main(["submission", "check", f"captions={bad}"]) == 1
    out = capsys.readouterr().out
    assert out.count("  line ") == 20
    assert "50 problems" in out
    assert "and 30 more" in out
    assert "not compared" in out


def test_check_against_a_folder_of_pictures(tmp_path, capsys):
    for name in ("b", "a", "c"):
        Image.new("L", (4, 4)).save(tmp_path / f"{name}.png")
    submission = write(tmp_path / "submission.csv", "ID,Caption\nc,x\na,y\n")
    assert main(["submission", "check", f"captions={submission}", f"images={tmp_path}"]) == 1
    out = capsys.readouterr().out
    assert "1 ids have no row up to the end: 'b'" in out
    assert "order" in out


def test_write_from_a_run_by_id_and_by_folder(tmp_path, capsys):
    captions = {"a_1": 'Says "mass", then\nmore', "a_2": "", "a_3": "\u05d2\u05d5\u05e9 🩻"}
    folder = a_run(tmp_path / "results", captions)
    for number, name in enumerate(("12345e6789", folder.name, str(folder))):  # an id that reads like a number
        out = tmp_path / "made" / f"{number}.csv"
        assert main(["submission", "write", f"run={name}", f"results={tmp_path / 'results'}", f"out={out}"]) == 0
        with out.open(encoding="utf-8", newline="") as file:
            assert list(csv.reader(file)) == [
                ["ID", "Caption"],
                *([name, caption.replace("\n", " ")] for name, caption in captions.items()),
            ]
    assert "1 captions had line breaks" in capsys.readouterr().out
    references = write(tmp_path / "references.csv", "ID,Caption\na_1,r\na_2,r\na_3,r\n")
    assert main(["submission", "check", f"captions={out}", f"references={references}"]) == 0


def test_failed_samples_are_refused_unless_empty_captions_are_asked_for(tmp_path, capsys):
    folder = a_run(tmp_path, {"a_1": "CT", "a_2": None})
    out = tmp_path / "submission.csv"
    assert main(["submission", "write", f"run={folder}", f"out={out}"]) == 2
    error = capsys.readouterr().err
    assert "1 samples have no caption: a_2" in error
    assert "empty=true" in error
    assert not out.exists()
    assert main(["submission", "write", f"run={folder}", f"out={out}", "empty=true"]) == 0
    assert out.read_text() == 'ID,Caption\na_1,"CT"\na_2,""\n'


def test_references_give_the_order_and_the_ids_that_the_dataset_rejected(tmp_path, capsys):
    folder = a_run(tmp_path, {"a_3": "x", "a_1": "y"}, rejected=[{"id": "a_2", "reason": "truncated"}])
    out = tmp_path / "submission.csv"
    assert main(["submission", "write", f"run={folder}", f"out={out}"]) == 0
    assert "rejected 1 samples, which get no row: a_2" in capsys.readouterr().err
    references = write(tmp_path / "references.csv", "ID,Caption\na_1,r\na_2,r\na_3,r\n")
    asked = ["submission", "write", f"run={folder}", f"out={out}", f"references={references}"]
    assert main(asked) == 2
    assert "a_2" in capsys.readouterr().err
    assert main([*asked, "empty=true"]) == 0
    assert out.read_text() == 'ID,Caption\na_1,"y"\na_2,""\na_3,"x"\n'


def test_ids_that_no_file_can_hold_are_refused(tmp_path, capsys):
    folder = a_run(tmp_path, {"a,1": "one, two", " b": "x"})
    assert main(["submission", "write", f"run={folder}", f"out={tmp_path / 'o.csv'}"]) == 2
    assert "no file of these ids" in capsys.readouterr().err
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["expected check or write"]),
        (["send"], ["expected check or write", "send"]),
        (["check"], ["captions=FILE"]),
        (["check", "captions=nowhere.csv"], ["expected a file", "nowhere.csv"]),
        (["check", "captions=here.csv", "format=imageclef2020"], ["format", "imageclef2026"]),
        (["check", "captions=here.csv", "references=here.csv", "images=."], ["one of them"]),
        (["check", "captions=here.csv", "reference=here.csv"], ["did you mean 'references'"]),
        (["write"], ["run=FOLDER"]),
        (["write", "run=0123456789"], ["0123456789", "capbench run"]),
        (["write", "run=failed"], ["has no captions"]),
        (["write", "run=whole", "out=."], ["got a folder"]),
    ],
)
def test_a_wrong_request_is_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "here.csv", GOOD)
    a_run(tmp_path, {"a": "x"}).rename(tmp_path / "whole")
    a_run(tmp_path, {"a": "x"}, status="failed").rename(tmp_path / "failed")
    assert main(["submission", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for word in words:
        assert word in error


def test_a_real_run_becomes_a_file_that_passes_and_can_be_scored(tmp_path, capsys):
    quick = ["model=cnn_transformer", "lora=none", "dataset.test=3", "generate.max_new_tokens=4", "threads=1"]
    results, out = tmp_path / "results", tmp_path / "submission.csv"
    assert main(["run", f"results={results}", *LIGHT, *quick]) == 0
    run = find_runs(results)[0]
    assert main(["submission", "write", f"run={run.row['run_id']}", f"results={results}", f"out={out}"]) == 0
    references = write(tmp_path / "references.csv", compose([(r.id, r.reference) for r in run.rows], FORMS[1]))
    assert main(["submission", "check", f"captions={out}", f"references={references}"]) == 0
    scored = [f"captions={out}", f"references={references}", f"results={tmp_path / 'scored'}", "threads=1"]
    assert main(["score", *scored]) == 0
