"""Captions by another engine: what leaves the captioner, what is compared before it counts, what is refused."""

import importlib.util
import sys

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from harness.cli import main
from harness.contracts import Decoding, Example, Exportable, Refused, RequestError
from harness.inference import vllm
from harness.inference.parity import Outputs, ParityCase, check_engine, move_weights
from harness.store import Journal, read_json
from tests.support import vllm_stub
from tests.support.captioners import GREEDY, NAMES, QUESTION, examples, loaded, make, one_per_family, picture, strategy
from tests.support.commands import LIGHT

EXPORTABLE = [name for name in NAMES if isinstance(make(name), Exportable)]
VLLM = Decoding(24, 1.0, 8, engine="vllm")
here = importlib.util.find_spec("vllm") is not None


def test_the_families_whose_language_model_takes_embeddings_alone():
    assert EXPORTABLE == ["llava_15", "llava_mistral", "llava_vicuna", "smolvlm"]


@pytest.mark.parametrize("name", one_per_family(EXPORTABLE))
@pytest.mark.parametrize("lora", ["none", "targeted", "hybrid"])
def test_the_exported_language_model_says_what_the_captioner_says(name, lora, tmp_path):
    captioner, asked = loaded(name), examples([None] * 4)
    used = strategy(lora)
    model = used.attach(captioner, used.plan(captioner))
    move_weights(model)
    own = captioner.generate(asked, GREEDY)
    used.merge(model)
    captioner.export(tmp_path)
    embedded = [captioner.embed(example) for example in asked]
    captioner.give_up_language()
    assert all(torch.equal(captioner.embed(e), known) for e, known in zip(asked, embedded, strict=True))
    alone = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    for made, one in zip(embedded, own, strict=True):
        ids = alone.generate(
            inputs_embeds=made[None], attention_mask=torch.ones(1, len(made)), do_sample=False,
            max_new_tokens=GREEDY.max_new_tokens, eos_token_id=list(captioner.stops), pad_token_id=captioner.pad_id,
        )  # fmt: skip
        assert captioner.caption(ids[0].tolist()) == one


@pytest.mark.parametrize("name", EXPORTABLE)
def test_embedding_leaves_the_captioner_as_it_is(name):
    captioner, (example,) = loaded(name), examples([None])
    before = captioner.generate([example], GREEDY)
    embedded = captioner.embed(example)
    assert captioner.generate([example], GREEDY) == before
    seen = Example((), example.prompt, seen=captioner.encode_images(captioner.preprocess(example)))
    torch.testing.assert_close(captioner.embed(seen), embedded)


# ---------------------------------------------------------------- the comparison


def case(captioner):
    asked = [Example((picture(64, 64, seed=place),), QUESTION) for place in range(2)]
    return ParityCase(captioner, asked, GREEDY)


@pytest.fixture(scope="module")
def told():
    """A captioner, and what it says of two pictures."""
    ill = case(loaded("smolvlm"))
    return ill, ill.outputs(ill.captions(1), 1)


def test_the_same_captions_are_healthy(told):
    ill, own = told
    finding = check_engine(ill, own, own.captions)
    assert (finding.check, finding.verdict) == ("engine", "same")


def test_other_words_are_not_healthy(told):
    ill, own = told
    words = own.captions[1].split()
    finding = check_engine(ill, own, [own.captions[0], " ".join([*words[:2], "aneurysm", *words[3:]])])
    assert finding.verdict == "differs"
    assert finding.first.startswith("sample 2, token ")
    assert not check_engine(ill, own, [own.captions[0], ""]).healthy


@pytest.mark.parametrize(("apart", "verdict"), [(1e-6, "near tie"), (1.0, "differs")])
def test_a_token_may_change_where_two_were_as_good_as_equal(told, apart, verdict):
    ill, _ = told
    one, other = "Normal chest.", "Normal head."
    ids, others = ill.answer(one), ill.answer(other)
    place = next(n for n, pair in enumerate(zip(ids, others, strict=False)) if pair[0] != pair[1])
    logits = torch.zeros(len(ids), 700, dtype=torch.float64)
    logits[place, ids[place]], logits[place, others[place]] = 10.0, 10.0 - apart
    assert check_engine(ill, Outputs([one], [logits]), [other]).verdict == verdict


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", [name for name in NAMES if name not in EXPORTABLE])
def test_a_family_that_needs_more_than_embeddings_is_refused(name):
    with pytest.raises(Refused, match="takes more than embeddings; use transformers"):
        vllm.check(make(name), VLLM, "cpu")


@pytest.mark.parametrize(
    ("values", "decoding", "device", "error", "words"),
    [
        ({"dtype": "nf4"}, VLLM, "cpu", Refused, "quantised"),
        ({}, Decoding(8, 1.2, 8, engine="vllm"), "cpu", Refused, "repetition_penalty=1.2"),
        ({}, VLLM, "cuda:1", RequestError, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_what_it_cannot_do_is_said_before_any_work(values, decoding, device, error, words):
    with pytest.raises(error, match=words):
        vllm.check(make("smolvlm", **values), decoding, device)


@pytest.mark.skipif(here, reason="vllm is installed")
def test_where_vllm_is_missing_a_command_says_how_to_get_it(tmp_path, capsys):
    results = tmp_path / "results"
    assert main(["run", "lora=none", "generate.engine=vllm", f"results={results}"]) == 2
    assert "pip install 'capbench[vllm]'" in capsys.readouterr().err
    assert not list(results.glob("runs/*"))


def test_a_plan_says_what_would_be_refused(tmp_path, capsys):
    asked = ["lora=none", "generate.engine=vllm", "generate.repetition_penalty=1.2", f"results={tmp_path}"]
    assert main(["run", "-m", "model=smolvlm,qwen2_vl", *asked, "--dry-run"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "2 cells, 2 refused" in text
    assert "looks at the prompt's ids" in text


# ---------------------------------------------------------------- whole runs


@pytest.fixture
def request_(tmp_path):
    return [
        "model=smolvlm", "dataset.train=8", "dataset.test=6", "train.epochs=2", "train.batch_size=4",
        "train.workers=0", "threads=1", "generate.max_new_tokens=12", f"results={tmp_path / 'results'}", *LIGHT,
    ]  # fmt: skip


def captions(results, engine_):
    (folder,) = [path for path in (results / "runs").iterdir() if ("-vllm-" in path.name) == (engine_ == "vllm")]
    assert read_json(folder / "manifest.json")["status"] == "ok"
    return [row.caption for row in Journal(folder / "captions.jsonl").rows()]


def test_a_run_by_another_engine_is_a_row_of_its_own(request_, tmp_path, monkeypatch):
    vllm_stub.install(monkeypatch)
    results = tmp_path / "results"
    assert main(["run", *request_, "lora=hybrid"]) == 0
    assert main(["run", *request_, "lora=hybrid", "generate.engine=vllm"]) == 0
    assert len(list((results / "fits").iterdir())) == 1, "the engine has no part in the fit"
    assert captions(results, "vllm") == captions(results, "transformers")
    board = pd.read_csv(results / "leaderboard.csv")
    assert sorted(board["model"]) == ["smolvlm", "smolvlm[vllm]"]


def test_a_fit_and_its_captions_by_another_engine_in_one_command(request_, tmp_path, monkeypatch):
    vllm_stub.install(monkeypatch)
    assert main(["run", *request_, "lora=targeted", "generate.engine=vllm"]) == 0
    (run,) = (tmp_path / "results" / "runs").iterdir()
    assert read_json(run / "manifest.json")["status"] == "ok"


def test_an_engine_that_says_something_else_makes_no_caption(request_, tmp_path, monkeypatch, capsys):
    vllm_stub.install(monkeypatch, wrong=1)
    assert main(["run", *request_, "lora=none", "generate.engine=vllm"]) == 1
    assert "its captions differ from the captioner's own (sample 1, token " in capsys.readouterr().err
    (run,) = (tmp_path / "results" / "runs").iterdir()
    assert read_json(run / "manifest.json")["status"] == "failed"
    assert not (run / "captions.jsonl").exists()


def test_doctor_compares_it_under_an_adapter(tmp_path, monkeypatch):
    vllm_stub.install(monkeypatch)
    out = tmp_path / "doctor.csv"
    asked = ["samples=2", "generate.max_new_tokens=8", "generate.engine=vllm", f"out={out}"]
    assert main(["doctor", "model=smolvlm,qwen2_vl", "lora=hybrid,none", *asked]) == 0
    table = pd.read_csv(out)
    assert table[table["check"] == "engine"]["verdict"].tolist() == ["same", "same"]
    assert table[table["model"] == "qwen2_vl"]["verdict"].tolist() == ["refused", "refused"]


@pytest.mark.skipif(not here, reason="needs vllm")
@pytest.mark.parametrize("lora", ["none", "hybrid"])
def test_vllm_itself_says_the_same(request_, tmp_path, lora):
    from model_zoo.embedded._random import prepare

    prepare("smolvlm", tmp_path / "checkpoint", "cpu", 2)
    asked = [*request_, "weights=hub", f"model.hub={tmp_path / 'checkpoint'}", "model.dtype=float32", f"lora={lora}"]
    asked += ["model.longest_edge=512", "dataset.size=128"]
    assert main(["run", *asked]) == 0
    assert main(["run", *asked, "generate.engine=vllm"]) == 0
    assert captions(tmp_path / "results", "vllm") == captions(tmp_path / "results", "transformers")
    assert "vllm" in sys.modules
