"""Pictures are decoded while the model works on those before them; what goes wrong is said where they are wanted."""

import threading

import pytest
from PIL import Image

from harness.batches.prefetch import Ahead
from harness.contracts import Decoding, Generated, ImageError, Query, Sample
from harness.inference.generate import generate
from harness.store import Journal

DECODING = Decoding(4, 1.0, 2)


class Picture:
    """Counts how often it is decoded, and may be damaged."""

    def __init__(self, damaged=False):
        self.damaged, self.times, self.loaded, self.thread = damaged, 0, threading.Event(), ""

    def load(self):
        self.times += 1
        self.thread = threading.current_thread().name
        self.loaded.set()
        if self.damaged:
            raise ImageError("torn")
        return Image.new("RGB", (8, 8))

    def digest(self):
        return "0"


class Captioner:
    """Says how many pictures it has got; `meanwhile` is called while it works."""

    name, model = "made-up", type("Model", (), {"eval": lambda self: None})()

    def __init__(self, meanwhile=lambda batch: None):
        self.meanwhile, self.batches = meanwhile, 0

    def generate(self, examples, decoding):
        self.batches += 1
        self.meanwhile(self.batches)
        return [Generated(f"{len(example.images)} picture", 2, False) for example in examples]


def queries(pictures):
    return [Query(Sample(str(place), (picture,), "-", "test"), "Describe.") for place, picture in enumerate(pictures)]


def test_the_next_batch_is_decoded_while_the_model_works(tmp_path):
    pictures = [Picture() for _ in range(6)]

    def meanwhile(batch):
        for picture in pictures[2 * batch : 2 * batch + 2]:
            assert picture.loaded.wait(60), "nobody decodes the next batch"
        assert not any(picture.loaded.is_set() for picture in pictures[2 * batch + 2 :]), "memory for one batch ahead"

    journal = Journal(tmp_path / "captions.jsonl")
    generate(Captioner(meanwhile), queries(pictures), DECODING, journal)
    assert [row.caption for row in journal.rows()] == ["1 picture"] * 6
    assert [picture.times for picture in pictures] == [1] * 6
    assert all(picture.thread.startswith("pictures") for picture in pictures)


def test_a_damaged_picture_is_a_failed_row_of_its_own(tmp_path):
    pictures = [Picture(damaged=place in (1, 2)) for place in range(5)]
    journal = Journal(tmp_path / "captions.jsonl")
    generate(Captioner(), queries(pictures), DECODING, journal)
    assert [row.status for row in journal.rows()] == ["ok", "failed", "failed", "ok", "ok"]
    assert [row.error for row in journal.rows()][1:3] == ["torn", "torn"]


def test_a_batch_that_does_not_fit_has_its_pictures_again(tmp_path):
    pictures = [Picture() for _ in range(4)]

    def meanwhile(batch):
        if batch == 1:
            raise MemoryError

    journal = Journal(tmp_path / "captions.jsonl")
    generate(Captioner(meanwhile), queries(pictures), DECODING, journal)
    assert [row.caption for row in journal.rows()] == ["1 picture"] * 4
    assert [picture.times for picture in pictures[:2]] == [2, 2]
    assert all(picture.times in (1, 2) for picture in pictures[2:]), "dropped or kept, as far as decoding had come"


def test_no_thread_is_left_when_the_model_fails(tmp_path):
    def meanwhile(batch):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        generate(Captioner(meanwhile), queries([Picture() for _ in range(4)]), DECODING, Journal(tmp_path / "c.jsonl"))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pictures")]


def test_what_is_no_longer_expected_is_dropped_and_made_when_asked_for():
    made = []
    first, second = queries([Picture(), Picture()])
    with Ahead(lambda query: made.append(query.sample.id) or query.sample.id) as ahead:
        ahead.expect([first])
        assert ahead.take(first) == "0"
        ahead.expect([first])
        ahead.expect([])
        assert ahead.take(second) == "1"
    assert made.count("1") == 1
