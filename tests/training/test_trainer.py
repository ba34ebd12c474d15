"""The order of samples and the fillers that let several processes share out an epoch."""

import pandas as pd
import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler

from harness.cells import cell
from harness.contracts import RequestError
from harness.training.trainer import Items, Order, collated
from tests.support.cell_driver import parts


@pytest.mark.parametrize(("count", "seed", "epoch"), [(1, 0, 0), (20, 0, 0), (20, 0, 3), (33, 7, 1)])
def test_the_order_is_the_one_of_accelerate(count, seed, epoch):
    theirs = SeedableRandomSampler(range(count), generator=torch.Generator(), data_seed=seed)
    ours = Order(count, 1, seed)
    for sampler in (theirs, ours):
        sampler.set_epoch(epoch)
    torch.rand(3)  # what else is random does not matter
    assert list(ours) == list(theirs)


@pytest.mark.parametrize(("count", "multiple", "length"), [(20, 8, 24), (16, 8, 16), (1, 6, 6)])
def test_fillers_come_last_and_are_as_many_as_needed(count, multiple, length):
    order = list(Order(count, multiple, 0))
    assert sorted(order[:count]) == list(range(count))
    assert order[count:] == list(range(count, length))
    assert order[:count] == list(Order(count, 1, 0))


def test_fillers_have_nothing_to_learn():
    items = Items(["a", "b"])

    def collate(queries):
        return {"labels": torch.tensor([[-100, ord(query)] for query in queries])}

    batch = collated([items[index] for index in (1, 0, 2, 5)], collate)
    assert batch["labels"].tolist() == [[-100, 98], [-100, 97], [-100, -100], [-100, -100]]


def test_rows_alike_share_micro_batches_and_updates_stay_what_they_are():
    lengths = [7, 3, 9, 1, 5, 5, 2, 8, 6, 4]
    plain, sorted_ = list(Order(10, 4, 3)), list(Order(10, 4, 3, update=4, lengths=lengths))
    assert sorted_ != plain
    for start in range(0, 8, 4):
        update = sorted_[start : start + 4]
        assert sorted(update) == sorted(plain[start : start + 4])
        assert [lengths[row] for row in update] == sorted((lengths[row] for row in update), reverse=True)
    assert sorted(sorted_[8:10]) == sorted(plain[8:10])
    assert sorted_[10:] == plain[10:] == [10, 11], "fillers stay last"


@pytest.mark.parametrize("optimiser", ["adamw_8bit", "paged_adamw_8bit"])
def test_optimisers_of_cuda_are_refused_elsewhere(optimiser, tmp_path):
    with pytest.raises(RequestError, match=rf"train.optimiser={optimiser}: expected a CUDA device, got cpu"):
        cell.run(parts(["model=smolvlm", "lora=targeted", f"train.optimiser={optimiser}"], tmp_path))


def test_a_network_that_cannot_be_computed_again_in_parts_is_refused(tmp_path):
    made = parts(["model=visiongpt2", "lora=full", "train.gradient_checkpointing=true"], tmp_path)
    with pytest.raises(cell.Recorded, match="gradient_checkpointing=true on model=visiongpt2"):
        cell.run(made)


@pytest.mark.parametrize("model", ["smolvlm", "moondream2"])
def test_gradient_checkpointing_makes_the_same_updates_and_is_no_part_of_the_identity(model, tmp_path):
    # dropout too: what is random is drawn again as it was
    options = [f"model={model}", "lora=targeted", "lora.dropout=0.3", "dataset.train=8", "dataset.test=1"]
    options += ["train.batch_size=4", "train.max_steps=3"]
    losses, fits = [], []
    for wanted in ("false", "true"):
        results = tmp_path / wanted
        assert cell.run(parts([*options, f"train.gradient_checkpointing={wanted}"], results)).status == "ok"
        (fit,) = results.glob("fits/*")
        fits.append(fit.name)
        losses.append(pd.read_csv(fit / "losses.csv")["loss"].to_numpy())
    assert fits[0] == fits[1]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_a_fit_of_one_step_changes_something(tmp_path):
    options = ["model=smolvlm", "lora=targeted", "dataset.train=4", "dataset.test=1", "train.max_steps=1"]
    for tokens in (4, 5):  # the second run reads the adapter, and refuses one that is all zero
        assert cell.run(parts([*options, f"generate.max_new_tokens={tokens}"], tmp_path)).status == "ok"
    assert len(list(tmp_path.glob("fits/*"))) == 1
