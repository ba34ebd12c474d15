"""The benchmark of the tables runs, at a tiny size; it ends with an error when a second rebuild gives other bytes."""

import pandas as pd

from harness.benchmarks.leaderboard import main


def test_both_figures_are_written(tmp_path):
    sizes = ["--systems", "3", "--images", "50", "--trials", "40", "--runs", "4", "--samples", "20", "--seeds", "2"]
    main([*sizes, "--results", str(tmp_path / "results"), "--out", str(tmp_path / "times.csv")])
    table = pd.read_csv(tmp_path / "times.csv")
    assert list(table["figure"]) == ["bootstrap", "permutation", "rebuild, cold", "rebuild, repeated"]
    assert (table["seconds"] > 0).all()
    board = pd.read_csv(tmp_path / "results" / "leaderboard.csv")
    assert list(board["seeds"]) == [2, 2]
    assert board["overall"].notna().all()
