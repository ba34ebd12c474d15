"""What a frozen vision tower makes of pictures is kept: losses and captions stay, the tower sees nothing twice."""

import json
from functools import cache

import pandas as pd
import pytest
import torch
from torch import nn

from harness.batches.feature_files import FeatureFiles
from harness.batches.features import Features
from harness.cells import cell
from harness.contracts import Measured, Query, Refused, TowerCached
from harness.store import Journal
from tests.support.captioners import NAMES, examples, loaded, make, one_per_family
from tests.support.cell_driver import parts

CACHED = [name for name in NAMES if isinstance(make(name), TowerCached)]
FROZEN = ["lora=targeted", "lora.sites=[qkv,mlp,connector]"]
QUICK = ["dataset.train=6", "dataset.test=4", "train.batch_size=3", "train.max_steps=4", "generate.batch_size=3"]
QUICK += ["train.learning_rate=1e-4"]  # larger steps make much of the rounding of another order of the same sums


def glances(captioner) -> list[int]:
    """Pictures, or parts of them, that the tower looks at from now on, one number a call."""
    seen, load = [], captioner.load

    def watched(device):
        load(device)
        first = next(m for m in captioner.model.modules() if isinstance(m, nn.Conv2d | nn.Conv3d))
        first.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))

    captioner.load = watched
    return seen


def finished(results, name, *overrides):
    """Losses and captions of one cell, and what its tower looked at."""
    made = parts([f"model={name}", *QUICK, *overrides], results)
    seen = glances(made.captioner)
    outcome = cell.run(made)
    assert outcome.status == "ok"
    rows = [(row.id, row.caption) for row in Journal(outcome.folder / "captions.jsonl").rows()]
    fit = json.loads((outcome.folder / "manifest.json").read_text())["row"]["fit_id"]
    losses = [pd.read_csv(path)["loss"].to_numpy() for path in results.glob(f"fits/*-{fit}/losses.csv")]
    return outcome.run_id, losses, rows, len(seen)


def test_all_captioners_with_a_language_model_of_their_own_are_among_them():
    assert set(NAMES) - set(CACHED) == {"cnn_transformer", "visiongpt2"}


@pytest.mark.parametrize("name", one_per_family(CACHED))
def test_losses_and_captions_are_those_of_pictures_and_another_strategy_finds_all(name, tmp_path):
    plain, kept = tmp_path / "plain", tmp_path / "kept"
    run, losses, captions, looks = finished(plain, name, *FROZEN, "features=off")
    again = finished(kept, name, *FROZEN, "features=on")
    assert looks == 4 + 2, "a micro-batch at a time, then two batches of captions"
    assert again[0] == run, "it is no part of the identity"
    assert again[1][0] == pytest.approx(losses[0], rel=1e-5)  # losses of 7: an ulp of float32 is 5e-7 there
    assert again[2] == captions
    assert again[3] == 6 + 4, "each picture once, whatever the epochs"
    other = finished(kept, name, "lora=targeted", "lora.sites=[qkv]")
    assert other[0] != run
    assert other[3] == 0
    zero = finished(plain, name, "lora=none", "features=off")
    assert finished(kept, name, "lora=none")[2:] == (zero[2], 0)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["model=smolvlm", "lora=targeted"],
            r"model=smolvlm lora=targeted: .*vision_model.*_proj and [0-9]+ more",
        ),
        (["model=qwen2_vl", "lora=extended"], r"model=qwen2_vl lora=extended: .*visual\.blocks"),
        (["model=visiongpt2", "lora=none"], r"model=visiongpt2 lora=none: .*no vision tower"),
    ],
)
def test_what_touches_the_tower_is_refused_by_name(overrides, words, tmp_path):
    with pytest.raises(Refused, match="features=on for " + words):
        cell.run(parts([*overrides, "features=on"], tmp_path))
    assert not any(tmp_path.glob("*/*"))


def test_nothing_is_kept_where_the_strategy_touches_the_tower(tmp_path):
    finished(tmp_path, "smolvlm", "lora=targeted", "train.max_steps=1")
    assert not (tmp_path / "cache" / "features").exists()


def test_without_room_pictures_are_looked_at_in_each_epoch(tmp_path):
    _, losses, captions, _ = finished(tmp_path / "plain", "smolvlm", *FROZEN, "features=off")
    some = finished(tmp_path / "some", "smolvlm", *FROZEN, "features_gb=0.0003")  # less than half of the pictures
    assert some[1][0] == pytest.approx(losses[0], rel=1e-5)
    assert some[2] == captions
    assert sum(path.stat().st_size for path in tmp_path.glob("some/cache/features/*/*")) <= 0.0003 * 2**30


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "gone"])
def test_what_is_damaged_is_made_again(damage, tmp_path):
    expected = finished(tmp_path, "smolvlm", "lora=none")
    spoilt = max(tmp_path.glob("cache/features/*/*.features"), key=lambda path: path.stat().st_size)
    raw = bytearray(spoilt.read_bytes())
    raw[len(raw) // 2] ^= 1
    spoilt.write_bytes({"flipped": bytes(raw), "cut": bytes(raw[:-9]), "empty": b"", "gone": b""}[damage])
    if damage == "gone":
        spoilt.unlink()
    for run in tmp_path.glob("runs/*/*.*"):
        run.unlink()
    assert finished(tmp_path, "smolvlm", "lora=none")[2:] == (expected[2], 1)
    assert spoilt.exists()
    assert len(list(tmp_path.rglob("*.damaged-1"))) == (0 if damage == "gone" else 1)


@cache
def smolvlm():
    return loaded("smolvlm")


def test_another_question_costs_no_look(tmp_path):
    class Picture:
        def __init__(self, image):
            self.image = image

        def digest(self):
            return "d" * 64

    captioner = smolvlm()
    (example,) = examples(["Normal."])
    sample = type("S", (), {"images": (Picture(example.images[0]),), "caption": "Normal."})()
    features = Features(captioner, FeatureFiles(tmp_path, 1e9), {})
    looks = []
    hook = captioner.model.get_submodule(captioner.tower).register_forward_pre_hook(lambda *_: looks.append(1))
    for question in ("What is it?", "Where is it?"):
        query = Query(sample, question)
        assert features.known(query) is None
        asked = type(example)(example.images, question, "Normal.")
        seen = features.encode(query, asked).seen
        known = features.known(query)
        assert known.ids == list(seen.ids) == captioner.row(asked).ids
        assert known.tensors.keys() == {"features"}
    hook.remove()
    assert len(looks) == 1


@pytest.mark.parametrize("name", CACHED)
def test_published_towers_have_no_dropout_and_features_are_those_of_training(name):
    captioner = make(name, weights="published")
    inside = [m for n, m in captioner.skeleton().named_modules() if n.startswith(captioner.tower)]
    assert len(inside) > 20
    assert not [m for m in inside if isinstance(m, nn.Dropout) and m.p > 0]
    assert not getattr(captioner.config.vision_config, "attention_dropout", 0)


@pytest.mark.parametrize("name", [name for name in CACHED if isinstance(make(name), Measured)])
@pytest.mark.parametrize("size", [(128, 128), (96, 400), (640, 480), (40, 30)])
def test_places_are_about_those_of_the_processor(name, size):
    from tests.support.captioners import picture

    captioner = make(name)
    mark = captioner.config.image_token_id
    found = captioner.row(type(examples([None])[0])((picture(*size),), "What is it?")).ids.count(mark)
    measured = captioner.places(size)
    assert measured == found if name == "smolvlm" else found / 2 <= measured <= 2 * found


# ---------------------------------------------------------------- files


def entry(value: float) -> dict[str, torch.Tensor]:
    return {"features": torch.full((1, 250), float(value))}  # 1,000 bytes and a header of less than 100


def test_what_is_kept_comes_back_in_its_dtype(tmp_path):
    files = FeatureFiles(tmp_path, 1e6)
    tensors = {"a": torch.randn(2, 3).bfloat16(), "b": torch.tensor([[1, 2]])}
    assert files.write("ab12", tensors)
    back = FeatureFiles(tmp_path, 1e6).read("ab12")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) and back[name].dtype == tensors[name].dtype for name in back)
    assert files.read("ab13") is None


def test_the_oldest_makes_room_but_nothing_of_this_process(tmp_path):
    import os

    before = FeatureFiles(tmp_path, 1e6)
    for age, key in enumerate(("aa", "bb", "cc")):
        before.write(key, entry(age))
        os.utime(tmp_path / key / f"{key}.features", (1e9 + age, 1e9 + age))
    files = FeatureFiles(tmp_path, 3500)
    assert files.read("aa") is not None, "from now on it is the newest"
    assert files.write("dd", entry(3))
    assert (files.has("aa"), files.has("bb"), files.has("cc")) == (True, False, True)
    assert files.write("ee", entry(4))
    assert not files.has("cc")
    assert not files.write("ff", entry(5)), "all the others are of this process"
    assert files.full
    assert all(files.read(key) is not None for key in ("aa", "dd", "ee"))


def test_a_full_disk_costs_nothing_but_time(tmp_path, monkeypatch):
    import errno
    from pathlib import Path

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    files = FeatureFiles(tmp_path, 1e6)
    monkeypatch.setattr(Path, "replace", full)
    assert not files.write("aa", entry(0))
    assert files.read("aa") is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "no draft is left"
