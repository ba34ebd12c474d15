"""ablation.csv: each number made again from the runs' own files, the bases found, the bytes the same when rebuilt."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import permutation_test

from harness import config
from harness.cli import main
from harness.contracts import ScoreProtocol
from harness.store import Journal, JournalRow, file_digest, read_json, write_json
from harness.store.runs import Run, find_runs
from harness.tables import columns
from harness.tables.ablation import ablation_table
from harness.tables.boards import build, grouped
from harness.tables.columns import SEED
from harness.tables.labels import variants
from harness.tables.rebuild import rebuild
from harness.tables.stats import holm
from tests.support.commands import LIGHT, SMALL
from tests.support.results import scored_by

FEW = [item for item in SMALL if not item.startswith(("dataset.test", "generate.batch_size"))]
REQUEST = ["model=smolvlm", *LIGHT, *FEW, "dataset.test=24", "generate.batch_size=8"]
SOURCES = "modality=none,oracle,predicted,wrong"


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Two seeds of one fit asked with labels, another wording, and a fit that was taught with labels."""
    folder = tmp_path_factory.mktemp("ablation") / "results"
    where = [*REQUEST, f"results={folder}"]
    assert main(["run", "-m", "prompt=modality", SOURCES, "seed=0,1", *where]) == 0
    assert main(["run", "-m", "prompt=modality_tag", "modality=oracle", *where]) == 0
    assert main(["run", "prompt=modality", "modality=oracle", "labels_in_training=true", *where]) == 0
    return folder


@pytest.fixture(scope="module")
def table(results) -> pd.DataFrame:
    return pd.read_csv(results / "ablation.csv", keep_default_na=False, na_values=[""])


def runs_of(results: Path, prompt: str, modality: str) -> list[Run]:
    found = [run for run in find_runs(results) if (run.row["prompt"], run.row["modality"]) == (prompt, modality)]
    return sorted(found, key=lambda run: run.row["seed"])


def values_of(runs: list[Run], metric: str) -> np.ndarray:
    return np.mean([pd.read_csv(run.folder / "samples.csv")[metric] for run in runs], axis=0)


def test_every_source_has_its_rows_and_one_fit_serves_all(results, table):
    assert tuple(table.columns) == columns.ABLATION_COLUMNS
    rows = set(zip(table["prompt"], table["modality"], strict=True))
    sources = {("modality", name) for name in ("oracle", "predicted", "wrong", "oracle[training]")}
    assert rows == sources | {("modality_tag", "oracle")}
    names = sorted(path.name.rpartition("-")[0] for path in (results / "fits").iterdir())
    assert names == ["smolvlm-targeted-labelled-s0", "smolvlm-targeted-s0", "smolvlm-targeted-s1"]


CASES = [
    ("modality", "oracle", 2),
    ("modality", "predicted", 2),
    ("modality", "wrong", 2),
    ("modality", "oracle[training]", 1),
    ("modality_tag", "oracle", 1),
]


@pytest.mark.parametrize(("prompt", "modality", "seeds"), CASES)
def test_the_numbers_are_those_of_the_samples(results, table, prompt, modality, seeds):
    """The base of a seed is the run without label of the same seed: of its own fit, or of the untaught one."""
    runs, bases = runs_of(results, prompt, modality), runs_of(results, "modality", "none")[:seeds]
    assert [run.row["seed"] for run in runs] == [run.row["seed"] for run in bases]
    truth = np.array([row.modality for row in runs[0].rows])
    given = np.array([row.label for row in runs[0].rows])
    mine = table[(table["prompt"] == prompt) & (table["modality"] == modality)]
    masks = {("all", "all"): np.ones(24, bool)} | {("modality", kind): truth == kind for kind in set(truth)}
    masks |= {("label", name): (given == truth) == (name == "right") for name in ("right", "wrong")}
    masks = {key: mask for key, mask in masks.items() if mask.any()}
    for _, part in mine.groupby("metric"):
        value, base = values_of(runs, "rouge"), values_of(bases, "rouge")  # light has one metric and its means
        assert set(zip(part["by"], part["group"], strict=True)) == set(masks)
        for row in part.to_dict("records"):
            mask = masks[row["by"], row["group"]]
            assert row["n"] == mask.sum()
            assert row["base"] == pytest.approx(base[mask].mean(), abs=1e-5)
            assert row["value"] == pytest.approx(value[mask].mean(), abs=1e-5)
            assert row["difference"] == pytest.approx((value - base)[mask].mean(), abs=1e-5)
            if base[mask].mean() > 0:
                assert row["change_pct"] == pytest.approx(100 * (value[mask].mean() / base[mask].mean() - 1), abs=0.05)
            if mask.sum() > 1:
                assert row["ci_low"] - 1e-6 <= row["difference"] <= row["ci_high"] + 1e-6
            else:
                assert np.isnan(row["ci_low"])


def test_p_values_are_scipys_and_corrected_over_the_rows_of_a_metric(results, table):
    whole = table[table["by"] == "all"]
    for _, family in whole.groupby("metric"):
        assert len(family) == 5
        np.testing.assert_allclose(family["p_holm"], holm(family["p"].to_numpy()), rtol=1e-5)
    assert table.loc[table["by"] != "all", "p_holm"].isna().all()
    row = whole[(whole["modality"] == "wrong") & (whole["metric"] == "rouge")].iloc[0]
    pair = [values_of(runs_of(results, "modality", name), "rouge") for name in ("wrong", "none")]
    theirs = permutation_test(
        pair,
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=4000,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    assert row["p"] == pytest.approx(theirs.pvalue, abs=0.04)


def test_the_interval_is_that_of_a_paired_bootstrap(results, table):
    row = table[(table["by"] == "all") & (table["modality"] == "wrong") & (table["metric"] == "rouge")].iloc[0]
    change = np.subtract(*(values_of(runs_of(results, "modality", name), "rouge") for name in ("wrong", "none")))
    drawn = np.random.default_rng(1).choice(change, size=(20_000, len(change))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (row["ci_low"], row["ci_high"]) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))


def test_values_agree_with_the_leaderboard(results, table):
    board = pd.read_csv(results / "leaderboard.csv").set_index(["prompt", "modality"])
    for row in table[(table["by"] == "all") & (table["metric"] == "rouge")].to_dict("records"):
        assert row["value"] == pytest.approx(board.loc[(row["prompt"], row["modality"]), "rouge"], abs=1e-5)


def test_people_get_the_published_form(results, table):
    text = (results / "ablation.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| smolvlm")]
    assert "none (base)" in lines[0]
    row = table[(table["by"] == "all") & (table["modality"] == "wrong") & (table["metric"] == "rouge")].iloc[0]
    (line,) = [line for line in lines if "| wrong |" in line]
    assert f"{row['value']:.3f} ({row['change_pct']:+.1f} %)" in line
    assert "| 0 of 24 |" in line
    assert "| 24 of 24 |" in next(line for line in lines if "| oracle |" in line)


def test_a_value_of_sums_is_made_of_sums_with_and_without_a_label(results, tmp_path):
    copy = tmp_path / "sums"
    shutil.copytree(results, copy)
    combine = [{"over": {"hit": 1}, "under": {"hit": 1, "miss": 1}}]

    def counts(place: int, name: str, n: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(place)
        return {"hit": rng.integers(0, 3, n) * 1.0, "miss": rng.integers(0, 2, n) * 1.0, "rate": np.full(n, np.nan)}

    protocol = ScoreProtocol("sums", 1, {"rate": {}}, {"mean": ["rate"]}, "mean")
    rebuild(scored_by(copy, protocol, {"rate": {"combine": combine}}, counts), 200, 300)
    table = pd.read_csv(copy / "ablation.csv").query("by == 'all' and metric == 'mean' and modality == 'wrong'")
    sides = []
    for source in ("wrong", "none"):
        files = [pd.read_csv(run.folder / "scores" / "rate-0.csv") for run in runs_of(copy, "modality", source)]
        sides.append([file[["hit", "miss"]].to_numpy() for file in files])

    def rate(seeds, rows=slice(None)):
        return np.mean([sums[rows, 0].sum() / sums[rows].sum() for sums in seeds])

    drawn = np.random.default_rng(SEED).integers(24, size=(200, 24))
    low, high = np.quantile([rate(sides[0], rows) - rate(sides[1], rows) for rows in drawn], [0.025, 0.975])
    row = table.iloc[0]
    assert (row["value"], row["base"]) == pytest.approx((rate(sides[0]), rate(sides[1])), rel=1e-5)
    assert (row["difference"], row["ci_low"], row["ci_high"]) == pytest.approx(
        (rate(sides[0]) - rate(sides[1]), low, high), abs=1e-5
    )
    assert 0 < row["p"] <= 1


# ---------------------------------------------------------------- files


def test_rebuilt_byte_identically_and_verified(results, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    before = {name: file_digest(copy / name) for name in ("ablation.csv", "ablation.md")}
    for name in before:
        (copy / name).unlink()
    assert main(["leaderboard", f"results={copy}"]) == 0
    assert {name: file_digest(copy / name) for name in before} == before
    assert main(["verify", f"results={copy}"]) == 0
    text = (copy / "ablation.csv").read_text()
    (copy / "ablation.csv").write_text(text.replace("wrong", "right", 1))
    capsys.readouterr()
    assert main(["verify", f"results={copy}"]) == 1
    assert "ablation.csv" in capsys.readouterr().out


def test_without_a_labelled_row_or_its_base_there_is_no_table(results, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    for run in runs_of(copy, "modality", "none"):
        shutil.rmtree(run.folder)
    rebuild(copy, 50, 100)
    assert not (copy / "ablation.csv").exists()
    assert not (copy / "ablation.md").exists()


def test_journals_without_the_label_have_no_rows_by_label(results, tmp_path):
    """As runs of earlier versions are: the label stands in the question only."""
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    for run in find_runs(copy):
        rows = [{key: value for key, value in vars(row).items() if key != "label"} for row in run.rows]
        (run.folder / "captions.jsonl").unlink()
        Journal(run.folder / "captions.jsonl").append(map(JournalRow, rows))
        manifest = read_json(run.folder / "manifest.json")
        manifest["files"]["captions.jsonl"] = file_digest(run.folder / "captions.jsonl")
        write_json(run.folder / "manifest.json", manifest)
    rebuild(copy, 50, 100)
    old, new = (pd.read_csv(folder / "ablation.csv") for folder in (copy, results))
    assert set(old["by"]) == {"all", "modality"}
    assert (old["by"] == "all").sum() == (new["by"] == "all").sum()


def test_a_base_in_another_style_must_ask_the_same_question(results):
    (members,) = grouped(find_runs(results)).values()
    key = next(iter(grouped(members)))
    board = build(key, members, 50)
    tag = [run for run in members if run.row["prompt"] == "modality_tag"]
    bases = [run for run in members if run.row["modality"] == "none"]
    board = replace(board, variants=tuple(variants([*tag, *bases])))
    found = ablation_table(board, 50, 100)
    assert set(found["prompt"]) == {"modality_tag"}
    for base in bases:
        vars(base)["rows"] = [JournalRow(vars(row) | {"prompt": "What is it?"}) for row in base.rows]
    assert ablation_table(board, 50, 100).empty


def test_the_experiment_is_three_captioners_by_five_sources():
    cells = config.cells("run", ["experiment=modality_ablation"])
    asked = {(c.choices["model"], c.choices["prompt"], c.choices["modality"]) for c in cells}
    sources = ("none", "oracle", "predicted", "shuffled", "wrong")
    assert asked == {(m, "modality", s) for m in ("smolvlm", "qwen2_vl", "qwen25_vl") for s in sources}
    more = config.cells("run", ["experiment=modality_ablation", "prompt=modality,modality_sentence"])
    assert len(more) == 2 * len(cells)
