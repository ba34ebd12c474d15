"""Captions are made in batches of rows alike, the longest first, and stand in the order of the dataset."""

import pytest

from harness.batches.lengths import lengths, longest_first
from harness.contracts import Decoding, Query, Sample
from harness.imaging.files import FileImage
from harness.inference.generate import generate
from harness.store import Journal
from tests.support.captioners import QUESTION, loaded, picture
from tests.support.cell_driver import break_at

SIZES = {"square": (64, 64), "wide": (256, 64), "tall": (64, 200), "also": (64, 64), "large": (256, 256)}


@pytest.fixture(scope="module")
def captioner():
    return loaded("smolvlm", longest_edge=256, image_splitting=True)


@pytest.fixture
def queries(tmp_path):
    found = []
    for name, size in SIZES.items():
        picture(*size).save(tmp_path / f"{name}.png")
        found.append(Query(Sample(name, (FileImage(tmp_path / f"{name}.png"),), "Normal.", "test"), QUESTION))
    return found


def ids(journal):
    return [row.id for row in journal.rows()]


def test_what_takes_most_places_comes_first(captioner, queries):
    rows = {q.sample.id: len(captioner.encode([q.sample.images[0].load()], QUESTION).ids) for q in queries}
    order = [query.sample.id for query in longest_first(captioner, queries)]
    assert [rows[name] for name in order] == sorted(rows.values(), reverse=True)
    assert len(set(rows.values())) > 2
    assert order.index("square") < order.index("also"), "equal ones keep their order"


def test_a_damaged_header_is_as_long_as_nothing(captioner, queries, tmp_path):
    (tmp_path / "wide.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    assert longest_first(captioner, queries)[-1].sample.id == "wide"


def test_answers_count_in_training_only(captioner, queries):
    told = [Query(Sample("x", q.sample.images, "word " * 80, "train"), q.prompt) for q in queries]
    assert lengths(captioner, told, answers=False) == lengths(captioner, queries, answers=False)
    longer = zip(lengths(captioner, told, answers=True), lengths(captioner, queries, answers=True), strict=True)
    assert all(a - b == 99 for a, b in longer)


def test_captions_end_in_the_order_of_the_queries_however_often_interrupted(captioner, queries, tmp_path, monkeypatch):
    decoding, whole = Decoding(8, 1.0, 2), Journal(tmp_path / "whole.jsonl")
    generate(captioner, queries, decoding, whole)
    assert ids(whole) == list(SIZES)
    torn = Journal(tmp_path / "torn.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(captioner, "generate", captioner.generate)
        break_at(captioner, "generate", 2, "raise")
        with pytest.raises(RuntimeError, match="fell off"):
            generate(captioner, queries, decoding, torn)
    first = [query.sample.id for query in longest_first(captioner, queries)[:2]]
    assert ids(torn) == first, "what was finished is on the disk, the longest first"
    generate(captioner, queries, decoding, torn)
    captions = [[(row.id, row.caption) for row in journal.rows()] for journal in (whole, torn)]
    assert captions[0] == captions[1]


def test_a_finished_journal_is_left_as_it_is(captioner, queries, tmp_path):
    journal = Journal(tmp_path / "captions.jsonl")
    generate(captioner, queries, Decoding(4, 1.0, 8), journal)
    before = (journal.path.read_bytes(), journal.path.stat().st_mtime_ns)
    generate(captioner, queries, Decoding(4, 1.0, 8), journal)
    assert (journal.path.read_bytes(), journal.path.stat().st_mtime_ns) == before
