"""A new dataset, prompt style, strategy, metric and captioner: one file and one yaml each, no edit elsewhere."""

from pathlib import Path

import pandas as pd
import pytest

from tests.support.commands import ROOT, capbench

PYTHON = {
    "stripes": """
import hashlib
from PIL import Image
from harness.contracts import Sample, Split

class Stripe:
    def __init__(self, index): self.index = index
    def load(self): return Image.linear_gradient("L").rotate(self.index * 30).convert("RGB")
    def digest(self): return hashlib.sha256(bytes([self.index])).hexdigest()

class Stripes:
    def __init__(self, name: str, count: int): self.name, self.count = name, count
    def load(self, split: str) -> Split:
        offset = {"train": 0, "valid": 50, "test": 100}[split]
        return Split(split, tuple(
            Sample(f"stripe-{split}-{i}", (Stripe(offset + i),), f"A gradient turned by {i * 30} degrees.", split)
            for i in range(self.count)))
""",
    "shout": """
class Shout:
    def __init__(self, name: str, question: str): self.name, self.question = name, question
    def text(self, sample, modality): return self.question.upper()
""",
    "early": '''
from harness.lora.sites import SiteLora

class EarlyLayers(SiteLora):
    """LoRA on the first language layers only."""
    def __init__(self, name: str, layers: int, rank: int, learning_rate: float):
        super().__init__(name, ["qkv"], [], rank, 2 * rank, 0.0, False, learning_rate)
        self.layers = layers
    def plan(self, captioner):
        import dataclasses
        plan = super().plan(captioner)
        kept = tuple(n for n in plan.adapted if any(f".layers.{i}." in n for i in range(self.layers)))
        share = len(kept) / len(plan.adapted)
        counts = {region: round(count * share) for region, count in plan.counts.items()}
        return dataclasses.replace(plan, adapted=kept, counts=counts, params_added=sum(counts.values()))
''',
    "brevity": """
from harness.contracts import Score

class Brevity:
    values, needs, higher_is_better = ("ratio",), frozenset({"reference"}), True
    def __init__(self, name: str, power: float): self.name, self.power = name, power
    def missing(self): return None
    def signature(self): return f"brevity|power={self.power}"
    def load(self, device, features): pass
    def score(self, pairs, references):
        sizes = [(len(p.candidate.split()) + 1, len(p.reference.split()) + 1) for p in pairs]
        return [Score({"ratio": (min(a, b) / max(a, b)) ** self.power}) for a, b in sizes]
""",
    "terse": '''
from model_zoo.smolvlm import SmolVLM

class Terse(SmolVLM):
    """SmolVLM that is asked for few words."""
    def encode(self, images, prompt): return super().encode(images, prompt + " Be brief.")
''',
}
YAML = {
    "dataset/stripes": "_target_: stripes.Stripes\nname: stripes\ncount: 8\n",
    "prompt/shout": "_target_: shout.Shout\nname: shout\nquestion: 'describe this medical image.'\n",
    "lora/early": "_target_: early.EarlyLayers\nname: early\nlayers: 1\nrank: 2\nlearning_rate: 1.0e-3\n",
    "metric/brevity": "_target_: brevity.Brevity\nname: brevity\npower: 1.0\n",
}


@pytest.fixture
def plugins(tmp_path) -> Path:
    for name, source in PYTHON.items():
        (tmp_path / f"{name}.py").write_text(source)
    model = (ROOT / "conf/model/smolvlm.yaml").read_text()
    model = model.replace("model_zoo.smolvlm.SmolVLM", "terse.Terse").replace('name: "smolvlm"', 'name: "terse"')
    twin = ROOT / "model_zoo/embedded/smolvlm"
    model = model.replace("HuggingFaceTB/SmolVLM-500M-Instruct", str(twin))
    for name, text in {**YAML, "model/terse": model}.items():
        path = tmp_path / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.slow
def test_five_extensions_at_once_need_no_edit_elsewhere(plugins):
    arguments = ["dataset=stripes", "prompt=shout", "lora=early", "model=terse", "weights=hub", "train=embedded"]
    limits = ["metrics=[brevity]", "train.max_steps=2", "train.batch_size=4", "generate.max_new_tokens=8", "threads=1"]
    done = capbench(
        ["run", "--config-dir", "conf", *arguments, *limits, "model.dtype=float32"], plugins, PYTHONPATH=str(plugins)
    )
    assert done.returncode == 0, done.stderr
    board = pd.read_csv(plugins / "results/leaderboard.csv")
    row = board.iloc[0]
    assert (row["model"], row["strategy"], row["prompt"]) == ("terse", "early", "shout")
    assert 0 <= row["brevity"] <= 1
    listed = capbench(["list", "models", "--config-dir", "conf"], plugins, PYTHONPATH=str(plugins), COLUMNS="200")
    assert "terse" in listed.stdout


@pytest.mark.slow
def test_a_plugin_that_python_cannot_find_is_named(plugins):
    done = capbench(["run", "--config-dir", "conf", "prompt=shout"], plugins)
    assert done.returncode == 2
    assert "shout.Shout" in done.stderr
    assert "PYTHONPATH" in done.stderr
    assert "Traceback" not in done.stderr
