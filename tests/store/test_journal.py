"""Identities, atomic files and journals: what a crash or an editor can do to them."""

import json
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contracts import UNKNOWN, Generated, Query, RequestError, Sample
from harness.store import (
    Damaged,
    Journal,
    JournalRow,
    difference,
    digest,
    locked,
    make_folder,
    read_manifest,
    same_identity,
    write_json,
    write_text,
)
from tests.support.commands import ROOT

TEXTS = st.text(max_size=40)


def test_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [1.5, None]}) == digest({"b": [1.5, None], "a": 1})
    assert digest({"a": 1}) != digest({"a": "1"})


def test_digest_is_stable_across_versions():
    """Golden value: json with sorted keys, no blanks, UTF-8; sha256 by `printf '{"a":"\\xc3\\xa9"}' | sha256sum`."""
    assert digest({"a": "é"}) == "b3a092a6af48807fa9482b2ee140105575daa26d5b24b3c0e60a7e2dee6683b1"


def said(name: str, caption: str) -> JournalRow:
    return JournalRow({"id": name, "caption": caption})


@given(rows=st.lists(st.fixed_dictionaries({"id": TEXTS, "caption": TEXTS}), max_size=5))
def test_a_journal_gives_back_what_was_appended(tmp_path_factory, rows):
    journal = Journal(tmp_path_factory.mktemp("journal") / "captions.jsonl")
    for row in rows:
        journal.append([JournalRow(row)])
    assert [vars(row) for row in journal.rows()] == rows


@given(caption=TEXTS, cut=st.integers(min_value=1, max_value=60))
def test_a_torn_last_line_is_dropped_and_the_next_append_is_whole(tmp_path_factory, caption, cut):
    journal = Journal(tmp_path_factory.mktemp("journal") / "captions.jsonl")
    journal.append([said("1", "first"), said("2", caption)])
    content = journal.path.read_bytes()
    second = len(content) - content.index(b"\n") - 1
    journal.path.write_bytes(content[: len(content) - min(cut, second)])
    assert journal.rows() == [said("1", "first")]
    journal.append([said("2", caption)])
    assert [row.id for row in journal.rows()] == ["1", "2"]


def test_every_caption_stays_on_one_line(tmp_path):
    journal = Journal(tmp_path / "captions.jsonl")
    caption = 'quotes " and\nnewlines\r\u2028\u0085 \x0c end'
    journal.append([said("1", caption)])
    assert len(journal.path.read_text(encoding="utf-8").splitlines()) == 1
    assert journal.rows() == [said("1", caption)]


def test_an_edited_row_is_refused_with_its_line(tmp_path):
    journal = Journal(tmp_path / "captions.jsonl")
    journal.append([said("1", "left"), said("2", "right")])
    journal.path.write_text(journal.path.read_text().replace("left", "right"))
    with pytest.raises(Damaged, match="line 1.*delete the line"):
        journal.rows()


def test_journal_rows_are_plain_json(tmp_path):
    journal = Journal(tmp_path / "captions.jsonl")
    journal.append([JournalRow({"id": "1", "n": 2})])
    row = json.loads(journal.path.read_text())
    assert row["id"] == "1"
    assert len(row["check"]) == 8


def test_write_text_leaves_no_draft_and_replaces_whole_files(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "new\r\nline")
    assert (tmp_path / "a.txt").read_bytes() == b"new\r\nline"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"status": "ok"}', "\xff"])
def test_a_corrupt_manifest_is_named(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(Damaged, match="manifest.json.*move the file away"):
        read_manifest(tmp_path)


def test_no_manifest_is_no_error(tmp_path):
    assert read_manifest(tmp_path) is None


def test_another_identity_is_refused_with_the_difference(tmp_path):
    known = {"seed": 0, "train": {"epochs": 2}, "sites": ["qkv"]}
    same_identity(tmp_path, known, {"seed": 0, "train": {"epochs": 2}, "sites": ("qkv",)})
    with pytest.raises(Damaged, match="train.epochs: 2 -> 3"):
        same_identity(tmp_path, known, {"seed": 0, "train": {"epochs": 3}, "sites": ["qkv"]})
    assert difference({"a": 1}, {"b": 2}) == ["a: 1 -> null", "b: null -> 2"]


def test_a_results_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(RequestError, match="results=.*choose another"):
        make_folder(tmp_path / "results")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_results_folder_that_cannot_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RequestError, match="Permission denied"):
        make_folder(tmp_path / "results")


def test_a_lock_of_a_killed_process_does_not_block(tmp_path):
    """A child takes the lock and dies by SIGKILL while it holds it."""
    code = (
        "import os, signal, sys; from pathlib import Path; from harness.store import locked\n"
        "with locked(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    child = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False)
    assert child.returncode == -9
    with locked(tmp_path):
        write_json(tmp_path / "x.json", {})
    assert (tmp_path / "x.json").exists()


def test_rows_are_put_in_order_with_what_came_before_them(tmp_path):
    journal = Journal(tmp_path / "captions.jsonl")
    journal.append([JournalRow({"id": id_, "seconds": n}) for n, id_ in enumerate(["c", "a", "x", "b", "a"])])
    journal.put_in_order(["a", "b", "c"])
    assert [(row.id, row.seconds) for row in journal.rows()] == [("a", 1), ("a", 4), ("b", 3), ("c", 0), ("x", 2)]
    assert [row.seconds for row in journal.latest()] == [4, 3, 0, 2]
    before = journal.path.stat().st_mtime_ns
    journal.put_in_order(["a", "b", "c"])
    assert journal.path.stat().st_mtime_ns == before


# ---------------------------------------------------------------- rows

QUERY = Query(Sample("a", (), "A rib.", "test", "CT", ("C1",)), "What is it?")
SAMPLE = '"reference": "A rib.", "modality": "CT", "concepts": ["C1"]'
WRITTEN = [
    (
        JournalRow.ok(QUERY, Generated("A bone.", 3, truncated=False)).taking(0.12345678),
        '"status": "ok", "caption": "A bone.", "tokens": 3, "truncated": false, "prompt": "What is it?", '
        f'{SAMPLE}, "seconds": 0.123457',
    ),
    (
        JournalRow.ok(
            replace(QUERY, label="CT"), Generated("", 0, truncated=True), {"neighbour": "b", "duplicate": True}
        ),
        '"status": "ok", "caption": "", "tokens": 0, "truncated": true, "neighbour": "b", "duplicate": true, '
        f'"prompt": "What is it?", "label": "CT", {SAMPLE}',
    ),
    (
        JournalRow.failed(QUERY, "torn").taking(1.0),
        f'"status": "failed", "caption": null, "error": "torn", "prompt": "What is it?", {SAMPLE}, "seconds": 1.0',
    ),
]


@pytest.mark.parametrize(("row", "written"), WRITTEN, ids=["ok", "control", "failed"])
def test_a_row_is_written_as_it_always_was_and_read_as_it_is(row, written, tmp_path):
    journal = Journal(tmp_path / "captions.jsonl")
    journal.append([row])
    assert journal.path.read_text().rpartition(', "check"')[0] == f'{{"id": "a", {written}'
    assert journal.rows() == [row]


@pytest.mark.parametrize("path", sorted((ROOT / "tests/data/results_0.1/runs").glob("*/captions.jsonl")), ids=str)
def test_a_journal_of_an_earlier_version_is_written_again_byte_by_byte(path, tmp_path):
    journal = Journal(tmp_path / "captions.jsonl")
    journal.append(Journal(path).rows())
    assert journal.path.read_bytes() == path.read_bytes()


def test_what_a_later_version_writes_into_a_row_stays(tmp_path):
    journal = Journal(tmp_path / "captions.jsonl")
    journal.append(JournalRow({"id": name, "answer": {"boxes": [1]}, "caption": "A rib."}) for name in "ba")
    before = journal.path.read_text().splitlines()
    journal.put_in_order(["a", "b"])
    assert journal.path.read_text().splitlines() == before[::-1]


def test_what_an_earlier_version_left_out_of_a_row_has_a_default():
    row = JournalRow({"id": "a", "status": "ok", "caption": "A rib.", "reference": "A rib."})
    assert (row.label, row.error, row.concepts, row.modality, row.duplicate) == (None, None, None, UNKNOWN, None)
    with pytest.raises(FrozenInstanceError):
        row.caption = "Another."
