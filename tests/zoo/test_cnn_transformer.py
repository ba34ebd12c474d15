"""CNN-Transformer: CheXNet's published checkpoint layout, positions, and the real size."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from harness.contracts import Decoding, Example, RequestError
from model_zoo.cnn_transformer import read_features
from model_zoo.nets.cnn_transformer import CNNTransformerNet, DenseNet, DenseNetConfig
from tests.support.captioners import examples, loaded, make, picture, twin_copy

TINY = DenseNetConfig(channels=8, growth=4, depths=(1, 2, 1, 1))


def densenet(config: DenseNetConfig, seed: int = 0) -> DenseNet:
    torch.manual_seed(seed)
    net = DenseNet(config)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net.eval()


def chexnet(net: DenseNet) -> dict[str, Tensor]:
    """The keys of arnoweng/CheXNet's model.pth.tar: torchvision 0.1 in a DataParallel, classifier of 14 findings."""
    state = {}
    for key, value in net.state_dict().items():
        if "num_batches_tracked" not in key:  # added to BatchNorm after CheXNet was trained
            old = re.sub(r"(denselayer\d+)\.(norm|conv)([12])\.", r"\1.\2.\3.", key)
            state[f"module.densenet121.features.{old}"] = value
    classifier = {"weight": torch.zeros(14, 1024), "bias": torch.zeros(14)}
    return state | {f"module.densenet121.classifier.0.{key}": value for key, value in classifier.items()}


def chexnet_file(folder: Path, state: dict[str, Tensor]) -> str:
    torch.save({"epoch": 12, "arch": "densenet121", "state_dict": state}, folder / "model.pth.tar")
    return str(folder / "model.pth.tar")


def hub(features: str, **values: str | None) -> CNNTransformerNet:
    tokenizer = str(Path(make("cnn_transformer").folder("tokenizer")))
    captioner = make("cnn_transformer", weights="hub", features=features, tokenizer=tokenizer, **values)
    captioner.load("cpu")
    assert isinstance(captioner.model, CNNTransformerNet)
    return captioner.model


def test_chexnets_published_layout_loads_completely(tmp_path: Path) -> None:
    net = densenet(DenseNetConfig(), seed=1)
    state = chexnet(net)
    assert "module.densenet121.features.denseblock1.denselayer1.norm.1.weight" in state  # as in the published file
    model = hub(chexnet_file(tmp_path, state))
    expected, found = net.state_dict(), model.features.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[k], v) for k, v in expected.items() if "num_batches" not in k)


def drop(state: dict[str, Tensor]) -> None:
    del state["module.densenet121.features.denseblock2.denselayer3.conv.2.weight"]


def add(state: dict[str, Tensor]) -> None:
    state["module.densenet121.features.denseblock9.denselayer1.conv.2.weight"] = torch.zeros(1)


def reshape(state: dict[str, Tensor]) -> None:
    state["module.densenet121.features.conv0.weight"] = torch.zeros(64, 1, 7, 7)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop, r"lacks key denseblock2\.denselayer3\.conv2\.weight"),
        (add, r"unknown key denseblock9\.denselayer1\.conv2\.weight"),
        (reshape, r"conv0\.weight has the shape \(64, 1, 7, 7\)"),
    ],
)
def test_a_chexnet_file_that_does_not_fit_is_refused(
    tmp_path: Path, spoil: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    state = chexnet(densenet(DenseNetConfig()))
    spoil(state)
    with pytest.raises(RequestError, match=message):
        hub(chexnet_file(tmp_path, state))


def test_a_file_that_runs_code_or_is_something_else_is_refused(tmp_path: Path) -> None:
    for content, message in ((print, "read safely"), ([1], "state_dict")):
        torch.save(content, tmp_path / "model.pth.tar")
        with pytest.raises(RequestError, match=message):
            read_features(tmp_path / "model.pth.tar")
    (tmp_path / "model.pth.tar").write_bytes(b"")
    with pytest.raises(RequestError, match="read safely"):
        read_features(tmp_path / "model.pth.tar")


@pytest.mark.parametrize("prefix", ["", "features."])
def test_a_features_folder_with_or_without_prefix(tmp_path: Path, prefix: str) -> None:
    net = densenet(TINY)
    TINY.save_pretrained(tmp_path)
    state = {prefix + key: value for key, value in net.state_dict().items() if "num_batches" not in key}
    save_file(state | {"classifier.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    model = hub(str(tmp_path))
    assert all(torch.equal(model.features.state_dict()[k.removeprefix(prefix)], v) for k, v in state.items())


def test_a_fresh_decoder_is_drawn_from_the_seed(tmp_path: Path) -> None:
    TINY.save_pretrained(tmp_path)
    save_file(densenet(TINY).state_dict(), tmp_path / "model.safetensors")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, same = hub(str(tmp_path)), hub(str(tmp_path))
    other = hub(str(tmp_path), init_seed=1)
    assert torch.equal(first.words.weight, same.words.weight)
    assert not torch.equal(first.words.weight, other.words.weight)
    assert torch.equal(torch.get_rng_state(), before), "loading must not change the run's own random numbers"


def test_the_densenet_computes_what_torchvision_documents() -> None:
    """Strides, dense concatenation and the final ReLU, against functional calls written out."""
    net, x = densenet(TINY), torch.randn(2, 3, 64, 96)
    state = net.state_dict()

    def norm(y: Tensor, key: str) -> Tensor:
        stats = (state[f"{key}.running_mean"], state[f"{key}.running_var"])
        return torch.relu(nn.functional.batch_norm(y, *stats, state[f"{key}.weight"], state[f"{key}.bias"]))

    def conv(y: Tensor, key: str, **options: int) -> Tensor:
        return nn.functional.conv2d(y, state[f"{key}.weight"], **options)

    with torch.no_grad():
        y = nn.functional.max_pool2d(norm(conv(x, "conv0", stride=2, padding=3), "norm0"), 3, 2, 1)
        for block, depth in enumerate(TINY.depths, 1):
            for layer in range(1, depth + 1):
                key = f"denseblock{block}.denselayer{layer}"
                new = conv(norm(y, f"{key}.norm1"), f"{key}.conv1")
                y = torch.cat([y, conv(norm(new, f"{key}.norm2"), f"{key}.conv2", padding=1)], 1)
            if block < 4:
                y = nn.functional.avg_pool2d(conv(norm(y, f"transition{block}.norm"), f"transition{block}.conv"), 2)
        expected = norm(y, "norm5")
        torch.testing.assert_close(net(x), expected)
    assert expected.shape == (2, TINY.features, 2, 3)
    assert (expected >= 0).all()


def test_training_leaves_batch_statistics_alone() -> None:
    model = loaded("cnn_transformer").model.train()
    before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    ids = torch.randint(0, 500, (4, 6))
    model(ids, pixel_values=torch.randn(4, 3, 96, 96)).logits.sum().backward()
    assert before
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert model.features.norm5.weight.grad is not None, "scale and shift are trained all the same"


def test_mirrored_pictures_look_different() -> None:
    captioner = loaded("cnn_transformer")
    image = picture(96, 96)
    mirrored = image.transpose(0)
    rows = [captioner.encode([i], "").tensors["pixel_values"] for i in (image, mirrored)]
    with torch.no_grad():
        places = [captioner.model.look(row).mean(1) for row in rows]
    assert not torch.allclose(*places, atol=1e-3)


def test_no_caption_exceeds_the_positions() -> None:
    captioner = loaded("cnn_transformer")
    positions = captioner.model.config.positions
    assert captioner.longest_answer() == positions - 1
    answer = captioner.answer("zebra " * 400, 1000)
    assert (len(answer.ids), answer.cut) == (positions - 1, True)
    batch = captioner.collate([Example((picture(64, 64),), "", "zebra " * 400)], 1000)
    assert batch["input_ids"].shape == (1, positions)
    batch.pop("labels")
    assert captioner.model(**batch).logits.shape[1] == positions
    with torch.no_grad():
        captioner.model.words.weight[captioner.stops[0]] = 0  # it never stops now
        captioner.model.words.weight[captioner.stops[0], 0] = -100
    generated = captioner.generate(examples([None]), Decoding(500, 1.0, 1))[0]
    assert generated.tokens <= positions - 1


def test_the_real_size_and_what_each_stage_trains(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "densenet121"}))  # as in timm's folders
    captioner = make("cnn_transformer", weights="hub", features=str(tmp_path))
    model = captioner.skeleton()
    assert sum(parameter.numel() for parameter in model.parameters()) == 47_988_608
    assert sum(parameter.numel() for parameter in model.features.parameters()) == 6_953_856
    counts = []
    for stage in captioner.schedule:
        modules = [m for n, m in model.named_modules() if any(re.fullmatch(p, n) for p in stage.modules)]
        counts.append(sum({id(p): p.numel() for module in modules for p in module.parameters()}.values()))
    last = sum(p.numel() for n, p in model.features.named_parameters() if n.startswith(("denseblock4.", "norm5.")))
    assert counts == [47_988_608 - 6_953_856, 47_988_608 - 6_953_856 + last, 47_988_608]


def test_a_decoder_folder_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = loaded("cnn_transformer")
    copy = twin_copy("cnn_transformer", tmp_path, monkeypatch)
    values = {part: str(copy / part) for part in ("features", "decoder", "tokenizer")}
    same = make("cnn_transformer", weights="hub", **values)
    assert same.digest() == twin.digest()
    state = load_file(copy / "decoder" / "model.safetensors")
    del state["project.weight"]
    save_file(state, copy / "decoder" / "model.safetensors")
    with pytest.raises(RequestError, match=r"lacks key project\.weight"):
        make("cnn_transformer", weights="hub", **values).load("cpu")
