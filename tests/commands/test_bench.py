"""The benchmarks run, at the smallest size, and compare like with like."""

from __future__ import annotations

import pandas as pd
import pytest

from harness.benchmarks import fit, generate, startup
from harness.cli import main
from harness.commands import bench
from tests.support.commands import ROOT

TINY = ["--layers", "1", "--edge", "512", "--pixels", "64", "--samples", "2", "--threads", "1", "--batch", "2"]


@pytest.fixture(autouse=True)
def this_checkout(monkeypatch):
    """In the processes that are started, too."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.slow
def test_each_captioner_is_a_row_with_its_ratios(tmp_path, capsys):
    out = tmp_path / "bench.csv"
    words = ["bench", "models=smolvlm", "samples=4", "batch_size=2", "max_new_tokens=4", "device=cpu", f"out={out}"]
    assert main(words) == 0
    (row,) = pd.read_csv(out).to_dict("records")
    assert all(row[name] > 0 for name in (*bench.RATES, *bench.COSTS))
    assert (row["model"], row["size"], row["threads"], "torch=" in row["versions"]) == ("smolvlm", "twin", 1, True)
    doubled = {name: row[name] * 2 for name in bench.RATES}
    assert bench.ratios(row | doubled, pd.read_csv(out)) == pytest.approx(
        dict.fromkeys(bench.RATES, 2.0) | dict.fromkeys(bench.COSTS, 1.0)
    )
    assert bench.ratios(row | {"size": "real"}, pd.read_csv(out)) == {}
    assert "captions_per_s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["models=nobody"], "models=nobody: expected all or some of"),
        (["baseline=none.csv"], "baseline=none.csv: expected a csv file"),
        (["size=huge"], "size: expected"),
    ],
)
def test_a_wrong_request_is_named(words, message, capsys):
    assert main(["bench", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_captioner_that_cannot_be_measured_costs_no_other(tmp_path, capsys):
    out = tmp_path / "bench.csv"
    assert main(["bench", "models=visiongpt2", "size=real", f"out={out}", "device=cpu"]) == 1
    assert "visiongpt2: not measured (visiongpt2: expected one of smolvlm" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
def test_fits_with_and_without_features_have_the_same_losses(tmp_path):
    out = tmp_path / "fit.csv"
    fit.main([*TINY, "--epochs", "1", "--sides", "pictures", "features made", "features kept", "--out", str(out)])
    table = pd.read_csv(out)
    assert list(table["side"]) == ["pictures", "features made", "features kept"]
    assert table["largest_difference"].max() < 1e-5
    assert (table["samples_per_s"] > 0).all()


@pytest.mark.slow
def test_captions_of_all_sides_are_the_same(tmp_path):
    out = tmp_path / "generate.csv"
    uncompiled = [name for name in generate.SIDES if "compiled" not in name]  # that takes a minute
    generate.main([*TINY, "--tokens", "4", "--out", str(out), "--sides", *uncompiled])
    table = pd.read_csv(out)
    assert len(table) >= 5
    assert (table["same_captions"] == 2).all()
    assert table["speedup"].iloc[0] == 1


def test_without_trl_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(fit, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="trl is not installed"):
        fit.trl(None, [], None, "cpu")


def test_starts_are_measured():
    row = startup.measure("--version", 1)
    assert row["command"] == "capbench --version"
    assert 0 < row["median_s"] == row["slowest_s"]
    assert row["peak_mb"] > 5
