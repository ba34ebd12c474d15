"""`capbench params`: the counts of the real architectures, beside the published ones."""

import pandas as pd
import pytest

from harness import config
from harness.choices import groups
from harness.cli import main
from harness.contracts import RequestError
from harness.published.parameters import COLUMNS, counted, published

# Sums over the published configurations, checked against transformers' own classes; tied weights once.
TOTALS = {
    "llava_mistral": 7_566_747_648,
    "llava_vicuna": 7_063_431_168,
    "llava_15": 7_063_427_072,
    "idefics_9b": 8_929_687_824,
    "qwen2_vl": 2_208_985_600,
    "qwen25_vl": 3_754_622_976,
    "moondream2": 1_866_919_792,
    "moondream2_early": 1_857_482_608,
    "smolvlm": 507_482_304,
    "visiongpt2": 238_603_776,
    "cnn_transformer": 47_988_608,
}
# rank * (in + out) over the modules of the published rows; peft 0.21 gives the same
PAPER = {
    "llava_mistral": 40_108_032,
    "llava_vicuna": 38_354_944,
    "llava_15": 84_672_512,
    "idefics_9b": 19_750_912,
    "qwen25_vl": 59_867_136,
    "qwen2_vl": 57_901_056,
    "moondream2": 74_496_000,
    "moondream2_early": 74_422_272,
    "smolvlm": 46_198_784,
}
MILLIONS = {  # targeted, extended, hybrid at rank 16
    "llava_mistral": (40.32, 49.23, 303.0),
    "llava_vicuna": (38.35, 47.27, 301.0),
    "llava_15": (38.35, 47.27, 301.0),
    "idefics_9b": (50.25, 63.36, 312.4),
    "qwen2_vl": (19.98, 29.22, 253.4),
    "qwen25_vl": (30.47, 41.36, 341.6),
    "smolvlm": (8.80, 11.55, 103.4),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """What the command writes without further words."""
    out = tmp_path_factory.mktemp("params") / "params.csv"
    assert main(["params", f"out={out}"]) == 0
    return pd.read_csv(out)


def column(table: pd.DataFrame, strategy: str, name: str) -> dict[str, float]:
    rows = table[table["strategy"] == strategy].dropna(subset=[name])
    return dict(zip(rows["model"], rows[name], strict=True))


def test_every_model_and_strategy_has_a_row(table: pd.DataFrame) -> None:
    assert tuple(table.columns) == COLUMNS
    expected = {(m, s) for m in [*groups()["model"], "moondream2_early"] for s in groups()["lora"]}
    assert set(zip(table["model"], table["strategy"], strict=True)) == expected
    assert len(table) == len(expected)


def test_totals_are_those_of_the_published_checkpoints(table: pd.DataFrame) -> None:
    assert column(table, "none", "params_total") == TOTALS


def test_trained_parameters_of_the_published_rows(table: pd.DataFrame) -> None:
    assert column(table, "paper", "params_trained") == PAPER
    percent = column(table, "paper", "params_trained_pct")
    assert percent["llava_mistral"] == pytest.approx(0.5273, abs=5e-5)
    assert percent["moondream2_early"] == pytest.approx(3.8523, abs=5e-5)
    assert percent["llava_15"] == pytest.approx(1.1845, abs=5e-5)
    assert percent["smolvlm"] == pytest.approx(8.3439, abs=5e-5)


def test_trained_parameters_of_the_strategies(table: pd.DataFrame) -> None:
    for place, strategy in enumerate(("targeted", "extended", "hybrid")):
        found = column(table, strategy, "params_trained")
        for model, millions in MILLIONS.items():
            assert found[model] / 1e6 == pytest.approx(millions[place], rel=5e-4), (model, strategy)


def test_regions_add_up(table: pd.DataFrame) -> None:
    counted_rows = table.dropna(subset=["params_trained"])
    regions = counted_rows[["vision", "connector", "language", "head", "embeddings"]].sum(axis=1)
    assert (regions == counted_rows["params_trained"]).all()


def test_each_published_row_stands_beside_ours_with_an_explanation(table: pd.DataFrame) -> None:
    rows = table.dropna(subset=["published_trained"])
    assert set(rows["model"]) == set(published())
    assert rows["explanation"].str.len().min() > 20
    exact = rows[rows["verdict"] == "exact"]
    assert set(exact["model"]) == {"llava_mistral", "moondream2_early"}
    assert (exact["params_trained"] / 1e6).round(1).astype(str).add("M").tolist() == exact["published_trained"].tolist()
    assert (exact["params_trained_pct"].round(2) == exact["published_pct"]).all()
    percent = rows[rows["verdict"] == "percent exact"]
    assert (percent["params_trained_pct"].round(2) == percent["published_pct"]).all()
    scaled = rows.dropna(subset=["published_scaling"])
    assert (scaled["scaling"] == scaled["published_scaling"]).all()


def test_refusals_say_why(table: pd.DataFrame) -> None:
    refused = table[table["verdict"] == "refused"]
    assert set(refused["model"]) >= {"visiongpt2", "cnn_transformer", "smolvlm"}
    assert refused["explanation"].str.contains("use").all()
    assert refused["params_trained"].isna().all()


def test_options_change_the_count() -> None:
    table = counted(["model=smolvlm", "lora=targeted", "lora.rank=8"], {}, None)
    assert table["params_trained"].tolist() == [8_797_184 // 2]


def test_the_published_configuration_has_no_weights() -> None:
    cell = config.cells("run", ["model=smolvlm", "model.weights=published"])[0]
    with pytest.raises(RequestError, match="neither weights nor words"):
        config.build(cell, "model").load("cpu")
