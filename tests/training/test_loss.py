"""The head on supervised positions alone gives the loss and the gradients of the head on all."""

import pytest
import torch

from harness.training.loss import caption_loss, supervised_only
from tests.support.captioners import NAMES, examples, loaded

CAPTIONS = ["A nodule in the left lung of a patient.", "", "Normal."]
WITHOUT_HEAD = {"visiongpt2", "cnn_transformer"}


def gradients(captioner, batch, picked: bool):
    """Loss, gradient norms by name and how many rows went through the head."""
    inputs, labels = {n: t for n, t in batch.items() if n != "labels"}, batch["labels"]
    captioner.model.zero_grad()
    if picked:
        with supervised_only(captioner.model, labels):
            outputs = captioner.model(**inputs)
    else:
        outputs = captioner.model(**inputs)
    loss = caption_loss(outputs, labels)
    loss.backward()
    return (
        loss.item(),
        {n: p.grad.clone() for n, p in captioner.model.named_parameters() if p.grad is not None},
        outputs,
    )


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_are_those_of_the_whole_head(name):
    captioner = loaded(name)
    captioner.model.requires_grad_()
    batch = captioner.collate(examples(CAPTIONS), 50)
    supervised = int((batch["labels"][:, 1:] != -100).sum())
    whole, expected, outputs = gradients(captioner, batch, picked=False)
    assert outputs.logits.shape[:2] == batch["labels"].shape
    loss, found, outputs = gradients(captioner, batch, picked=True)
    assert outputs.logits.dim() == (3 if name in WITHOUT_HEAD else 2)
    assert name in WITHOUT_HEAD or len(outputs.logits) == supervised
    assert loss == pytest.approx(whole, abs=1e-6)
    assert found.keys() == expected.keys()
    for key, gradient in found.items():
        torch.testing.assert_close(gradient, expected[key], atol=1e-6, rtol=1e-4, msg=key)
    again = captioner.model(**{n: t for n, t in batch.items() if n != "labels"}).logits
    assert again.shape[:2] == batch["labels"].shape, "afterwards all is as before"


def test_a_batch_of_fillers_has_no_rows_and_no_gradient():
    captioner = loaded("smolvlm")
    captioner.model.requires_grad_()
    batch = captioner.collate(examples(CAPTIONS), 50)
    batch["labels"][:] = -100
    with supervised_only(captioner.model, batch["labels"]):
        outputs = captioner.model(**{n: t for n, t in batch.items() if n != "labels"})
    loss = caption_loss(outputs, batch["labels"], num_items_in_batch=4)
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad.any() for p in captioner.model.parameters() if p.grad is not None)
