"""The benchmark of the metrics runs, at a tiny size, and both ways of calling give the same values."""

import csv

import pandas as pd
import pytest

from harness.benchmarks.metrics import main
from tests.support.launcher_work import warm
from tests.support.metric_data import REFERENCES


@pytest.mark.slow
def test_ours_and_the_official_calls_agree(tmp_path):
    captions, out = tmp_path / "captions.csv", tmp_path / "metrics.csv"
    with captions.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "caption"])
        writer.writerows((str(place), text) for place, text in enumerate(REFERENCES * 8))
    tiny = ["--tiny", "--samples", "24", "--systems", "2", "--part", "12"]
    warm()
    main(["--captions", str(captions), "--out", str(out), *tiny])
    table = pd.read_csv(out).set_index("metric")
    assert set(table.index) == {"similarity", "bertscore", "rouge1", "bleurt", "umls_f1", "alignscore"}
    assert (table["largest_difference"] < 1e-5).all()
    assert table.loc["rouge1", "largest_difference"] == table.loc["umls_f1", "largest_difference"] == 0
    assert (table.loc[["similarity", "bertscore", "bleurt", "alignscore"], "gflops_per_s"] > 0).all()
