"""The benchmark of the report runs, at a tiny size."""

import pandas as pd
import pytest

from harness.benchmarks.report import main


@pytest.mark.slow
def test_the_figures_are_written(tmp_path):
    main(["--models", "2", "--samples", "12", "--out", str(tmp_path / "report.csv")])
    table = pd.read_csv(tmp_path / "report.csv")
    assert list(table["figure"][:3]) == ["report, cold", "report, repeated", "page"]
    assert (table["value"] > 0).all()
