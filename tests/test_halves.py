"""A CPU that computes bfloat16 in software is named before hours are spent on it."""

import pytest
import torch

from harness import halves


@pytest.fixture(autouse=True)
def fresh():
    halves._say.cache_clear()


@pytest.mark.parametrize(
    ("dtype", "device", "times", "said"),
    [
        (torch.bfloat16, "cpu", 300.0, True),
        (torch.bfloat16, "cpu", 0.6, False),
        (torch.float32, "cpu", 300.0, False),
        (torch.bfloat16, "cuda:0", 300.0, False),
    ],
)
def test_it_is_said_once_where_it_is_slow(dtype, device, times, said, monkeypatch, capsys):
    monkeypatch.setattr(halves, "slowdown", lambda: times)
    for _ in range(2):
        halves.warn_if_slow("model smolvlm", dtype, device)
    text = capsys.readouterr().err
    assert text.count("dtype=float32") == int(said)
    assert ("model smolvlm: this CPU computes bfloat16 300 times slower" in text.replace("\n", " ")) is said


def test_the_slowdown_is_that_of_bfloat16_over_float32(monkeypatch):
    assert halves._seconds(torch.float32) > 0
    monkeypatch.setattr(halves, "_seconds", {torch.bfloat16: 6.0, torch.float32: 2.0}.__getitem__)
    halves.slowdown.cache_clear()
    assert halves.slowdown() == 3
    halves.slowdown.cache_clear()
