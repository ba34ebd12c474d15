"""A question that knows its answer is refused; short captions, labels and what everybody is asked raise no alarm."""

import pytest

from harness.cells.leaks import refuse_leaks
from harness.cli import main
from harness.contracts import Query, RequestError, Sample
from harness.prompts.modality import ModalityFirst
from harness.store.runs import find_runs

QUESTION = "Describe this medical image."
CAPTIONS = [
    "Axial CT of the chest showing a nodule in the left lung.",
    "Chest X-ray without abnormality.",
    "Normal brain MRI.",
    "CT",
]
STYLE = ModalityFirst("modality", QUESTION, "Imaging modality: {modality}.")


def sample(place: int, caption: str, modality: str = "CT") -> Sample:
    return Sample(f"s{place}", (), caption, "test", modality=modality)


def alarm(queries: list[Query], style: str) -> str | None:
    """What the check says, None where it lets the questions pass."""
    try:
        refuse_leaks(queries, style)
    except RequestError as error:
        return str(error)
    return None


def asked(texts: list[str], label: str | None = None) -> list[Query]:
    return [
        Query(sample(n, caption), text, label) for n, (caption, text) in enumerate(zip(CAPTIONS, texts, strict=True))
    ]


@pytest.mark.parametrize(
    ("place", "text", "leaked"),
    [
        (0, f"{CAPTIONS[0]} {QUESTION}", "axial ct of the chest"),
        (0, f"{QUESTION} Hint: SHOWING a nodule -- in the left lung", "showing a nodule in the"),
        (1, f"chest x ray, without abnormality? {QUESTION}", "chest x ray without abnormality"),
        (2, f"{QUESTION} (normal brain mri)", "normal brain mri"),
    ],
)
def test_a_caption_or_a_long_part_of_it_is_refused(place, text, leaked):
    texts = [QUESTION] * 4
    texts[place] = text
    with pytest.raises(RequestError) as caught:
        refuse_leaks(asked(texts), "spy")
    for word in ("prompt=spy", f"sample s{place}", leaked):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"{QUESTION} Is there a nodule in the right lung?",  # 4 words of the caption in a row
        f"CT. {QUESTION}",  # all of a caption that says no more than a label
        f"Chest. {QUESTION}",
    ],
)
def test_a_few_words_are_no_leak(text):
    assert alarm(asked([text] * 4), "style") is None
    assert alarm(asked([text, *[QUESTION] * 3]), "style") is None


@pytest.mark.parametrize("label", ["CT", "X-ray", "PET/CT", None])
@pytest.mark.parametrize(
    "caption", ["CT", "X-ray", "PET/CT", "Modality: CT", "Imaging modality: CT.", "Describe this."]
)
def test_captions_that_are_hardly_more_than_a_label_raise_no_alarm(caption, label):
    samples = [sample(0, caption), sample(1, "Another one."), sample(2, caption, "MRI")]
    assert alarm([Query(one, STYLE.text(one, label), label) for one in samples], "modality") is None


def test_what_everybody_is_asked_is_no_leak():
    long = "Describe what you see in this picture of a patient."
    texts = [f"{long} Is it {word}?" for word in ("one", "two", "three", "four")]
    queries = [Query(sample(n, long), text) for n, text in enumerate(texts)]
    assert alarm(queries, "style") is None
    with pytest.raises(RequestError, match="sample s0"):
        refuse_leaks(queries[:1], "style")  # of a single one nobody can tell


def test_a_label_that_is_the_caption_is_a_leak():
    said = [sample(n, caption) for n, caption in enumerate(CAPTIONS)]
    with pytest.raises(RequestError, match="sample s0.*source of the label"):
        refuse_leaks([Query(one, STYLE.text(one, one.caption), one.caption) for one in said], "modality")


SPY = """
class Spy:
    def __init__(self, name: str): self.name = name
    def text(self, sample, modality): return f"{sample.caption} Is that so?"
"""


def test_the_command_refuses_before_it_fits(tmp_path, monkeypatch, capsys):
    (tmp_path / "spy.py").write_text(SPY)
    (tmp_path / "conf/prompt").mkdir(parents=True)
    (tmp_path / "conf/prompt/spy.yaml").write_text("_target_: spy.Spy\nname: spy\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    request = ["run", "--config-dir", str(tmp_path / "conf"), "prompt=spy", f"results={tmp_path / 'results'}"]
    assert main([*request, "dataset.train=8", "dataset.test=4", "threads=1"]) == 2
    error = capsys.readouterr().err
    assert "prompt=spy" in error
    assert "PHANTOM_test_000001" in error
    assert not list((tmp_path / "results/fits").glob("*/adapter"))
    assert find_runs(tmp_path / "results") == []
    # A baseline is not asked anything: what the style says cannot reach it.
    quick = ["dataset.train=8", "dataset.test=4", "threads=1", "generate.max_new_tokens=4"]
    assert main([*request, "model=cnn_transformer", "lora=none", "metrics=[rouge1]", *quick]) == 0
