"""The embedded checkpoint of similarity: made again, small, sees what it is documented to see."""

import re

import numpy as np
import pytest
import torch

from harness.contracts import Pair
from harness.datasets.phantom import Phantom
from harness.datasets.phantom.lexicon import FINDING, MODALITY
from harness.datasets.phantom.plan import PLAN
from harness.encoders.medimageinsight import MedImageInsight, empty_net, read_config
from harness.encoders.pair_files import TWIN
from harness.metrics.embedded import pair_encoder
from tests.support.similarity import DEFAULT, SAMPLES


@pytest.fixture(scope="module")
def embedded() -> MedImageInsight:
    return MedImageInsight(TWIN, "cpu", torch.float32)


DEFAULT_AND_MORE = Phantom("phantom", train=1, valid=1, test=1200, size=128, seed=2025, style="radiology", limit=None)


# ---------------------------------------------------------------- the embedded checkpoint


def test_the_embedded_checkpoint_is_small_and_its_words_are_those_of_the_command(tmp_path):
    assert sum(path.stat().st_size for path in TWIN.rglob("*") if path.is_file()) < 2_500_000
    pair_encoder.write_tokenizer(tmp_path / "words", pair_encoder.plain_captions(), 1000)
    for path in (tmp_path / "words").iterdir():
        assert path.read_bytes() == (TWIN / "language_model" / "clip_tokenizer_4.16.2" / path.name).read_bytes()
    assert DEFAULT.sample("test", 0).images[0].seed != pair_encoder.SEED


def test_training_is_reproducible(embedded):
    states, config = [], read_config(TWIN / "config.yaml")
    for _ in range(2):
        torch.manual_seed(0)
        recipe = pair_encoder.Recipe(pictures=8, steps=4, batch=4)
        net = pair_encoder.start(empty_net(config, embedded.tokenizer.vocab_size), recipe)
        pair_encoder.train(net, embedded, recipe)
        states.append(net.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def swapped(caption: str, lexicon: dict[str, tuple[str, ...]], of: str, to: str) -> str:
    """The caption with one term for another: a test of its own, not the training's way of making wrong captions."""
    for word in sorted(lexicon[of], key=len, reverse=True):
        place = caption.lower().find(word.lower())
        if place >= 0:
            return caption[:place] + lexicon[to][0] + caption[place + len(word) :]
    raise AssertionError(f"{of} is not in {caption!r}")


def other_side(sample, rng) -> str:
    side = sample.factors["side"]
    return sample.caption.replace(side, {"left": "right", "right": "left"}[side])


def other_finding(sample, rng) -> str:
    """Any of the others, seen in such pictures or not."""
    finding = sample.factors["finding"]
    to = rng.choice([name for name in FINDING["radiology"] if name not in (finding, "none")])
    return swapped(sample.caption, FINDING["radiology"], finding, to)


def likely_finding(sample, rng) -> str:
    """Another one that such pictures have too."""
    options = PLAN[sample.modality][1][sample.factors["region"]]
    to = [name for name in options if name not in (sample.factors["finding"], "none")]
    return swapped(sample.caption, FINDING["radiology"], sample.factors["finding"], rng.choice(to)) if to else ""


def other_modality(sample, rng) -> str:
    to = rng.choice([name for name in MODALITY["radiology"] if name != sample.modality])
    return swapped(sample.caption, MODALITY["radiology"], sample.modality, to)


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [("side", other_side), ("finding", other_finding), ("finding", likely_finding), ("modality", other_modality)],
)
def test_a_true_caption_beats_the_same_one_with_one_wrong_fact(metrics, kind, spoil):
    """On pictures that were not trained on, with the seed that users score."""
    rng = np.random.default_rng(0)
    spoilt = [(sample, spoil(sample, rng)) for sample in SAMPLES if sample.factors[kind] not in ("", "none")]
    true, false = compared(metrics["similarity"], [(sample, wrong) for sample, wrong in spoilt if wrong])
    assert (true > false).mean() >= 0.9


def compared(metric, spoilt) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of 150 true captions and of what became of them."""
    assert len(spoilt) >= 150
    sides = ([(s.caption, s) for s, _ in spoilt[:150]], [(wrong, s) for s, wrong in spoilt[:150]])
    scores = (metric.score([Pair("r", text, s.images[0]) for text, s in side], []) for side in sides)
    true, false = (np.array([score.values["cosine"] for score in side]) for side in scores)
    return true, false


BLIND = {
    "size": (r"\b(small|large)\b", lambda m: {"small": "large", "large": "small"}[m[1]]),
    "arrow": (r"\b(white|red|yellow|blue) arrow", lambda m: f"{'red' if m[1] == 'white' else 'white'} arrow"),
    "no": (r" (showing|shows|demonstrating|reveals|with) (an?) ", r" \1 no "),
}


@pytest.mark.parametrize("kind", BLIND)
def test_what_it_cannot_see_is_as_documented(metrics, kind):
    """The true caption wins no more often than a coin that is thrown 150 times may."""
    samples = DEFAULT_AND_MORE.load("test").samples
    spoilt = [(sample, re.sub(*BLIND[kind], sample.caption)) for sample in samples]
    true, false = compared(
        metrics["similarity"], [(sample, wrong) for sample, wrong in spoilt if wrong != sample.caption]
    )
    assert (true > false).mean() < 0.65
    assert abs(true - false).mean() < 0.04
