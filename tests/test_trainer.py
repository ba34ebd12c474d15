"""The order of samples and the fillers that let several processes share out an epoch."""

import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler

from harness.trainer import Items, Order, collated


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
