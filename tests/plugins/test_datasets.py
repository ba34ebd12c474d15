"""The contract of a dataset, for each yaml."""

import pickle
from collections import Counter

import pytest

from harness import config
from harness.choices import groups
from harness.contracts import SPLITS, RequestError
from tests.support.caption_tables import COLUMNS, picture, write_csv
from tests.support.rocov2_like import make


@pytest.fixture(params=groups()["dataset"])
def contracted(request, tmp_path):
    """Each dataset as its yaml has it, on files of its form where it needs a user's."""
    node = config.choice("dataset", request.param) | {"cache": str(tmp_path / "cache")}
    if request.param in ("rocov2", "imageclef"):
        make(tmp_path / "set")
        node["root"] = str(tmp_path / "set")
    elif request.param == "table":
        for value in range(40):
            picture(tmp_path / f"{value}.png", value)
        node["path"] = str(write_csv(tmp_path / "t.csv", [(f"{k}.png", f"A {k}.") for k in range(40)], COLUMNS))
    elif {"path", "root"} & set(node):
        pytest.skip("needs files of a form that nobody wrote a maker for")
    else:
        del node["cache"]
    return config.build_node(node, "dataset")


# ---------------------------------------------------------------- the contract


def test_contract(contracted, request):
    dataset = contracted
    assert dataset.name == request.node.callspec.params["contracted"]
    splits = {split: dataset.load(split) for split in SPLITS}
    ids = Counter(sample.id for split in splits.values() for sample in split.samples)
    assert ids.most_common(1)[0][1] == 1, "ids are unique and splits disjoint"
    for name_of_split, split in splits.items():
        assert split.name == name_of_split
        assert split.samples
        assert split.samples == dataset.load(name_of_split).samples, "the same order each time"
        for sample in split.samples:
            assert sample.split == name_of_split
            assert sample.caption.strip() == sample.caption != ""
            assert sample.modality
            assert sample.images
        image = split.samples[0].images[0]
        assert image.load().mode == "RGB"
        assert image.digest() == image.digest() != split.samples[1].images[0].digest()
        assert pickle.loads(pickle.dumps(split.samples)) == split.samples, "for the workers of a loader"


def test_unknown_split_is_refused(contracted):
    with pytest.raises(RequestError, match=r"expected a split of train, valid, test, got 'dev'"):
        contracted.load("dev")
