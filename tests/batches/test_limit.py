"""Out of memory, injected: batches shrink, nothing is skipped, the update stays the same, the limit is remembered."""

import json
import weakref

import pandas as pd
import pytest
import torch

from harness.batches.limit import DoesNotFit, Limit
from harness.cells import cell
from harness.contracts import CapBenchError, Decoding, Query, RequestError
from harness.inference.generate import generate
from harness.machine import memory
from harness.store import Damaged, Journal
from harness.training.fit import Fit
from tests.support.cell_driver import limit_rows, parts


def built(results, *overrides, lora=("lora=targeted", "lora.dropout=0.0")):
    return parts(["model=smolvlm", *lora, *overrides], results)


def zero_shot(results, *overrides):
    return built(results, *overrides, lora=["lora=none"])


def queries(made, split):
    return [Query(sample, "Describe this medical image.") for sample in made.dataset.load(split).samples]


def captions(made, folder, batch_size, limit=None):
    journal = Journal(folder / "captions.jsonl")
    generate(made.captioner, queries(made, "test"), Decoding(12, 1.0, batch_size), journal, limit)
    return [(row.id, row.caption) for row in journal.rows()]


def counting(captioner):
    """The sizes of the batches that were asked for from now on."""
    sizes, generate_ = [], captioner.generate

    def counted(examples, decoding):
        sizes.append(len(examples))
        return generate_(examples, decoding)

    captioner.generate = counted
    return sizes


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("any words"),
        MemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 12 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_shortage_is_recognised(error):
    assert memory.is_shortage(error)


def test_a_real_allocation_that_fails_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert memory.is_shortage(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory"), KeyError("memory")])
def test_another_error_is_no_shortage(error):
    assert not memory.is_shortage(error)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_captions_are_those_of_batches_of_one(rows, tmp_path):
    made = built(tmp_path)
    made.captioner.load("cpu")
    expected = captions(made, tmp_path / "one", 1)
    assert len(expected) == 10
    limit_rows(made.captioner, rows)
    sizes = counting(made.captioner)
    assert captions(made, tmp_path / "limited", 8) == expected
    assert sum(size for size in sizes if size <= rows) == 10
    assert sizes[0] == 8
    assert max(sizes[sizes.index(rows if rows != 3 else 2) :]) <= rows, "it starts over with what did not fit"


def test_what_was_finished_before_a_shortage_stays(tmp_path):
    """The second batch does not fit any more: the rows of the first one are not made again."""
    made = built(tmp_path)
    made.captioner.load("cpu")
    expected = captions(made, tmp_path / "one", 1)
    sizes, original = [], made.captioner.generate

    def tightening(examples, decoding):
        sizes.append(len(examples))
        if len(sizes) > 1 and len(examples) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(examples, decoding)

    made.captioner.generate = tightening
    assert captions(made, tmp_path / "limited", 4) == expected
    assert sizes == [4, 4, 2, 1, 1, 1, 1, 1, 1]


def test_one_row_that_does_not_fit_fails_the_cell_and_names_it(tmp_path):
    made = zero_shot(tmp_path)
    limit_rows(made.captioner, 0)
    first = made.dataset.load("test").samples[0].id
    with pytest.raises(cell.Recorded, match=f"caption of {first}: out of memory with one row") as caught:
        cell.run(made)
    assert isinstance(caught.value.__cause__, DoesNotFit)
    manifest = json.loads(next(tmp_path.glob("runs/*/manifest.json")).read_text())
    assert manifest["status"] == "failed"
    assert "model.dtype=nf4" in manifest["row"]["error"]
    assert not any(tmp_path.glob("runs/*/captions.jsonl"))


def test_an_error_of_another_kind_is_not_held_for_a_shortage(tmp_path):
    made = built(tmp_path)
    made.captioner.load("cpu")

    def broken(examples, decoding):
        raise RuntimeError("shapes differ")

    made.captioner.generate = broken
    with pytest.raises(RuntimeError, match="shapes differ"):
        captions(made, tmp_path, 4)


def test_memory_is_free_before_the_next_attempt(tmp_path):
    """What a failed batch held, in frames that its error's traceback keeps, is gone when the next one starts."""
    made = built(tmp_path)
    made.captioner.load("cpu")
    original, held = made.captioner.generate, []

    class Tensor:
        pass

    def leaking(examples, decoding):
        assert all(reference() is None for reference in held)
        if len(examples) > 2:
            big = Tensor()
            big.itself = big
            held.append(weakref.ref(big))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(examples, decoding)

    made.captioner.generate = leaking
    assert len(captions(made, tmp_path, 8)) == 10
    assert len(held) == 2


# ---------------------------------------------------------------- what is remembered


def test_a_later_run_starts_at_the_limit_until_its_file_is_deleted(tmp_path, capsys):
    made = zero_shot(tmp_path, "generate.batch_size=8")
    limit_rows(made.captioner, 4)
    assert cell.run(made).status == "ok"
    (path,) = (tmp_path / "cache").glob("rows-*.json")
    assert f"4 rows at once (remembered in {path}: delete it" in capsys.readouterr().err.replace("\n", "")
    assert json.loads(path.read_text())["rows"] == 4

    def sizes(*overrides):
        later = zero_shot(tmp_path, *overrides)
        asked = counting(later.captioner)
        assert cell.run(later).fresh
        return asked

    assert sizes("prompt=modality", "generate.batch_size=8") == [4, 4, 2]
    assert sizes("prompt=modality", "modality=oracle", "generate.batch_size=3") == [3, 3, 3, 1]
    path.unlink()
    assert sizes("modality=oracle", "generate.batch_size=8") == [8, 2]


def test_a_limit_belongs_to_what_it_was_learned_from(tmp_path):
    limit = Limit(tmp_path, {"device": "A", "tokens": 64})
    assert limit.of(16) == 16
    assert limit.lower(16, "x") == 8
    assert limit.lower(8, "x") == 4
    limit.keep()
    assert Limit(tmp_path, {"tokens": 64, "device": "A"}).of(16) == 4
    assert Limit(tmp_path, {"device": "A", "tokens": 64}).of(2) == 2
    assert Limit(tmp_path, {"device": "B", "tokens": 64}).of(16) == 16
    assert limit.path.exists()
    for text in ("{ torn", "[]", '{"rows": 0}', '{"rows": "4"}'):
        limit.path.write_text(text)
        with pytest.raises(Damaged, match=limit.path.name):
            Limit(tmp_path, {"device": "A", "tokens": 64})


# ---------------------------------------------------------------- fits


def fitted(folder, rows=None, limit=None, **changes):
    made = built(folder)
    if rows:
        limit_rows(made.captioner, rows)
    made.captioner.load("cpu")
    plan = made.strategy.plan(made.captioner)
    training = type(made.training)(**{**made.training.__dict__, **changes})
    done = Fit(made.captioner, made.strategy, plan, queries(made, "train"), training, 0, folder, limit or Limit()).run()
    return done, pd.read_csv(folder / "losses.csv")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return fitted(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(("rows", "micro", "shortages"), [(4, 4, 1), (3, 2, 2)])
def test_a_fit_that_does_not_fit_makes_the_same_updates(whole, rows, micro, shortages, tmp_path):
    limit = Limit(tmp_path / "cache", {})
    done, losses = fitted(tmp_path, rows, limit)
    assert (done.micro_batch_size, done.shortages, done.steps) == (micro, shortages, 6)
    assert (whole[0].micro_batch_size, whole[0].shortages) == (8, 0)
    assert losses["loss"].to_numpy() == pytest.approx(whole[1]["loss"].to_numpy(), abs=1e-5)
    again, _ = fitted(tmp_path / "again", rows, Limit(tmp_path / "cache", {}))
    assert (again.micro_batch_size, again.shortages) == (micro, 0)


def test_a_shortage_in_the_middle_goes_on_from_the_last_checkpoint(whole, tmp_path):
    """As when another program takes memory: steps before the checkpoint are not made again, the old model is gone."""
    made = built(tmp_path)
    load, old, sizes = made.captioner.load, [], []

    def load_counting(device):
        assert all(reference() is None for reference in old), "two models in memory at once"
        load(device)
        old.append(weakref.ref(made.captioner.model))
        made.captioner.model.register_forward_pre_hook(tight, with_kwargs=True)

    def tight(model, _, values):
        sizes.append(len(values["input_ids"]))
        if len(sizes) >= 4 and sizes[-1] > 4:
            raise MemoryError

    made.captioner.load = load_counting
    made.captioner.load("cpu")
    plan = made.strategy.plan(made.captioner)
    done = Fit(made.captioner, made.strategy, plan, queries(made, "train"), made.training, 0, tmp_path).run()
    assert len(old) == 2
    # 20 samples by 8: two whole updates and one of 4 in an epoch; step 3 is made again, as it was after checkpoint 2
    assert sizes == [8, 8, 4, 8, 4, 4, 4, 4, 4, 4]
    assert (done.micro_batch_size, done.shortages) == (4, 1)
    losses = pd.read_csv(tmp_path / "losses.csv")["loss"]
    assert losses.to_numpy() == pytest.approx(whole[1]["loss"].to_numpy(), abs=1e-5)


def test_a_fit_of_one_row_that_does_not_fit_fails(tmp_path):
    made = built(tmp_path)
    made.captioner.load("cpu")
    made.captioner.model.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(MemoryError()))
    plan = made.strategy.plan(made.captioner)
    training = type(made.training)(**{**made.training.__dict__, "micro_batch_size": 1})
    with pytest.raises(DoesNotFit, match="fit of smolvlm: out of memory with one row"):
        Fit(made.captioner, made.strategy, plan, queries(made, "train"), training, 0, tmp_path).run()


def test_a_loss_that_is_no_number_ends_the_fit(tmp_path):
    with pytest.raises(CapBenchError, match=r"the loss became nan at step \d.*learning_rate"):
        fitted(tmp_path, learning_rate=1e30, max_grad_norm=0.0)


def test_processes_must_share_out_a_batch_evenly(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr("harness.machine.ranks.start", lambda device: None)
    with pytest.raises(RequestError, match=r"train.batch_size=8: expected a multiple of the 3 processes"):
        cell.run(built(tmp_path))
    assert not any(tmp_path.iterdir())
