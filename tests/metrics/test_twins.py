"""The metrics' embedded checkpoints come from the command beside them, and what it writes is what ships."""

import pytest
import torch
from safetensors.torch import load_file

from harness.metrics.embedded._lessons import ALIGNED, CONTRADICT, FACTS, lessons
from harness.metrics.embedded.build import HERE, makers

NAMES = ["alignscore", "bleurt"]


@pytest.mark.parametrize("name", NAMES)
def test_the_build_is_reproducible_and_writes_the_files_that_ship(name, tmp_path):
    reports = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        reports.append(makers()[name](folder, 2))
    assert reports[0] == reports[1]
    one, two, shipped = (load_file(folder / "model.safetensors") for folder in (tmp_path / "one", folder, HERE / name))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert {key: value.shape for key, value in one.items()} == {key: value.shape for key, value in shipped.items()}
    assert not all(torch.equal(one[key], shipped[key]) for key in one), "never trained"
    files = {file.name for file in folder.iterdir()}
    assert files == {file.name for file in (HERE / name).iterdir()}
    for file in files - {"model.safetensors"}:
        assert (folder / file).read_bytes() == (HERE / name / file).read_bytes(), file


def test_lessons_repeat_and_differ_from_stream_to_stream():
    one, two, three = (lessons(stream) for stream in (7, 7, 8))
    first = [next(one) for _ in range(50)]
    assert first == [next(two) for _ in range(50)]
    assert first != [next(three) for _ in range(50)]


def test_a_lesson_is_labelled_by_its_facts():
    source = lessons(0)
    found = [next(source) for _ in range(2000)]
    assert {lesson.label for lesson in found} == {0, 1, 2}
    for lesson in found:
        if lesson.label == CONTRADICT:
            assert False in lesson.kept
            assert lesson.share < 1
            assert lesson.reference != lesson.candidate
        elif lesson.label == ALIGNED and lesson.said and lesson.said.finding:
            assert False not in lesson.kept
            assert lesson.share == 1
    wrong = {fact for lesson in found for fact, kept in zip(FACTS, lesson.kept, strict=True) if kept is False}
    assert wrong == set(FACTS)
