"""bfloat16 on a CPU without instructions for it: float32's time, and the values that the instructions give."""

import re

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from harness.contracts import Decoding
from harness.inference.parity import ParityCase, compared
from harness.machine import bfloat16
from harness.machine.rounding import RoundedProducts
from tests.support.captioners import CONF, NAMES, TWINS, examples, loaded

CPU = torch.device("cpu")
STEP = 2**-7  # of bfloat16 beside 1
SUMS = re.compile("mm|mv|conv|matmul|linear|attention|einsum|dot|inner|outer|encoder_layer")  # of products, in names
VLMS = [name for name in NAMES if OmegaConf.load(CONF / f"{name}.yaml").kind != "baseline"]
SHORT = Decoding(max_new_tokens=8, repetition_penalty=1.0, batch_size=2)


@pytest.fixture(autouse=True)
def fresh():
    bfloat16._say.cache_clear()


@pytest.fixture
def lacking(monkeypatch):
    monkeypatch.setattr(bfloat16, "slowdown", lambda: 300.0)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def attention(q, k, v, **options):
    return functional.scaled_dot_product_attention(q, k, v, **options)


WORK = {
    "matmul": (torch.matmul, [(5, 7), (7, 3)]),
    "batched": (torch.matmul, [(2, 5, 7), (2, 7, 3)]),
    "broadcast": (torch.matmul, [(2, 5, 7), (7, 3)]),
    "vector": (torch.matmul, [(5, 7), (7,)]),
    "linear": (functional.linear, [(2, 5, 7), (3, 7), (3,)]),
    "linear without bias": (functional.linear, [(5, 7), (3, 7)]),
    "addmm": (torch.addmm, [(3,), (5, 7), (7, 3)]),
    "baddbmm": (torch.baddbmm, [(2, 5, 3), (2, 5, 7), (2, 7, 3)]),
    "einsum": (lambda a, b: torch.einsum("bij,bkj->bik", a, b), [(2, 5, 7), (2, 3, 7)]),
    "conv2d": (functional.conv2d, [(1, 4, 8, 8), (6, 4, 3, 3), (6,)]),
    "conv2d by channel": (lambda x, w: functional.conv2d(x, w, groups=4), [(1, 4, 8, 8), (4, 1, 3, 3)]),
    "conv1d": (functional.conv1d, [(1, 4, 8), (6, 4, 3)]),
    "attention": (attention, [(1, 2, 5, 8)] * 3),
    "attention to the past": (lambda *qkv: attention(*qkv, is_causal=True), [(1, 2, 5, 8)] * 3),
    "attention, masked": (
        lambda *qkv: attention(*qkv, attn_mask=torch.tensor([[True, True, False, True, True]] * 5)),
        [(1, 2, 5, 8)] * 3,
    ),
}


def results(work, shapes, mode):
    """Value and gradients."""
    inputs = [random(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes)]
    with mode:
        value = work(*inputs)
        value.float().square().sum().backward()
    return [value.detach(), *(part.grad for part in inputs)]


@pytest.mark.parametrize("name", WORK)
def test_values_and_gradients_are_those_of_the_processor(name):
    work, shapes = WORK[name]
    ours = results(work, shapes, RoundedProducts())
    theirs = results(work, shapes, torch.enable_grad())
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype == torch.bfloat16
        assert a.shape == b.shape
        assert float((a - b).abs().max()) <= 2 * STEP * float(b.abs().max())


@pytest.mark.parametrize("name", [*WORK, "MultiheadAttention", "TransformerEncoderLayer"])
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_the_processor_multiplies_no_bfloat16(name, mode):
    """Whatever torch makes of a function, with and without gradients, as a whole or taken apart."""
    work, shapes = WORK.get(name) or layer(name)
    inputs = [random(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    with mode(), Watch() as watch, RoundedProducts():
        work(*inputs)
    assert not watch.left


def layer(name):
    built = getattr(nn, name)(8, 2, batch_first=True).bfloat16().eval()
    return (lambda x: built(x, x, x)[0]) if name == "MultiheadAttention" else built, [(1, 5, 8)]


class Watch(TorchDispatchMode):
    """`left`: the sums of products of bfloat16 that reach the processor."""

    def __init__(self):
        super().__init__()
        self.left = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        parts = tree_flatten((args, kwargs))[0]
        found = any(isinstance(part, torch.Tensor) and part.dtype == torch.bfloat16 for part in parts)
        if found and SUMS.search(str(func.overloadpacket)):
            self.left.add(str(func.overloadpacket))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "dtype"), [*((name, "auto") for name in VLMS), ("smolvlm", "nf4")])
def test_captioners_say_the_same(name, dtype, monkeypatch):
    captioner = loaded(name, dtype=dtype, weights="hub", hub=str(TWINS / name))
    case = ParityCase(captioner, examples([None, None]), SHORT)
    monkeypatch.setattr(bfloat16, "slowdown", lambda: 1.0)
    captions = case.captions(2)
    plain = case.outputs(captions, 2)
    monkeypatch.setattr(bfloat16, "slowdown", lambda: 300.0)
    with Watch() as watch:
        found = compared("rounded", case, captions, plain, case.outputs(captions, 2))
    assert found.healthy, found
    assert not watch.left


def test_a_product_is_rounded_once():
    a, b = random(64, 64), random(64, 64, seed=1)
    with RoundedProducts():
        found = a @ b
    assert torch.equal(found, (a.float() @ b.float()).bfloat16())


def test_float32_is_left_alone_and_a_mixture_stays_an_error():
    a = torch.randn(4, 4)
    with RoundedProducts():
        assert torch.equal(a @ a, torch.matmul(a, a))
        with pytest.raises(RuntimeError, match="dtype"):
            a @ random(4, 4)


def test_it_trains_as_the_processor_does(lacking, monkeypatch):
    def losses():
        torch.manual_seed(0)
        net = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True).bfloat16()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
        found = []
        for _ in range(5):
            with bfloat16.emulation(torch.bfloat16, CPU):
                loss = (net(random(2, 6, 16)).float() - 1).square().mean()
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    ours = losses()
    monkeypatch.setattr(bfloat16, "slowdown", lambda: 1.0)
    assert ours == pytest.approx(losses(), rel=0.02)
    assert ours[-1] < ours[0] * 0.9


@pytest.mark.parametrize(
    ("dtype", "device", "times", "rounded"),
    [
        (torch.bfloat16, CPU, 300.0, True),
        (torch.bfloat16, CPU, 0.6, False),
        (torch.float32, CPU, 300.0, False),
        (torch.bfloat16, torch.device("cuda:0"), 300.0, False),
    ],
)
def test_it_is_done_and_said_once_where_the_processor_lacks_it(dtype, device, times, rounded, monkeypatch, capsys):
    monkeypatch.setattr(bfloat16, "slowdown", lambda: times)
    used = []
    monkeypatch.setattr(RoundedProducts, "__enter__", lambda self: used.append(self))
    monkeypatch.setattr(RoundedProducts, "__exit__", lambda self, *error: None)
    for _ in range(2):
        with bfloat16.emulation(dtype, device):
            pass
    assert bool(used) is rounded
    text = " ".join(capsys.readouterr().err.split())
    assert text.count("dtype=float32 takes no longer") == int(rounded)


def test_an_error_within_is_raised_and_the_mode_left(lacking):
    with pytest.raises(RuntimeError, match="shapes"), bfloat16.inference(torch.bfloat16, CPU):
        random(2, 3) @ random(2, 3)
    assert torch.is_grad_enabled()
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


def test_the_slowdown_is_that_of_bfloat16_over_float32(monkeypatch):
    assert bfloat16.product_seconds(torch.float32) > 0
    monkeypatch.setattr(bfloat16, "product_seconds", {torch.bfloat16: 6.0, torch.float32: 2.0}.__getitem__)
    bfloat16.slowdown.cache_clear()
    assert bfloat16.slowdown() == 3
    bfloat16.slowdown.cache_clear()
