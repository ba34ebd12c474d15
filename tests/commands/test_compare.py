"""`capbench compare`: the figures of the tables, the samples that differ most, and runs that cannot be compared."""

import shutil

import pandas as pd
import pytest
from scipy.stats import ttest_rel

from harness.cli import main
from harness.commands.compare import by_sample, pair, summary
from harness.contracts import RequestError
from harness.store import read_json, write_json
from harness.store.runs import find_run, find_runs
from tests.support.results import made_up


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return made_up(tmp_path_factory.mktemp("compare"), runs=3)


def test_the_figures_are_those_of_significance_csv(results):
    assert main(["leaderboard", f"results={results}", "permutations=2000"]) == 0
    tested = pd.read_csv(results / "significance.csv")
    tested = tested[tested["row_a"].str.startswith("model0002") & tested["row_b"].str.startswith("model0001")]
    pairing = pair(find_run(results, "model0002"), find_run(results, "model0001"), None)
    table = summary(pairing, trials=1000, permutations=2000)
    merged = table.merge(tested, on="metric", suffixes=("", "_file"))
    assert len(merged) == 9
    for name in ("difference", "ci_low", "ci_high"):
        assert merged[name].to_numpy() == pytest.approx(merged[f"{name}_file"].to_numpy(), rel=1e-4, abs=1e-7)
    values = [values.to_numpy() for values in pairing.values]
    assert table["p"].to_numpy() == pytest.approx(ttest_rel(*values).pvalue, abs=0.06)


def test_samples_are_ordered_by_how_much_they_differ(results, tmp_path, capsys):
    out = tmp_path / "samples.csv"
    words = [f"results={results}", "metric=rouge", "top=2", f"out={out}", "permutations=99"]
    assert main(["compare", "model0000", "model0001", *words]) == 0
    table = pd.read_csv(out)
    assert len(table) == 40
    assert table["difference"].abs().is_monotonic_decreasing
    assert (table["difference"] - (table["rouge_a"] - table["rouge_b"])).abs().max() < 1e-5
    text = capsys.readouterr().out
    for row in table.head(2).to_dict("records"):
        assert all(row[name] in text for name in ("id", "reference", "caption_a", "caption_b"))
    assert table.loc[2, "id"] not in text
    mine = {row.id: row.caption for row in find_run(results, "model0000").rows}
    assert dict(zip(table["id"], table["caption_a"], strict=True)) == mine


def test_a_failure_is_left_out_and_counted(results, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    victim = next(find_run(copy, "model0000").folder.glob("scores/rouge-*.csv"))
    header, first, *rest = victim.read_text().splitlines()
    victim.write_text("\n".join([header, f"{first.split(',')[0]},,no caption", *rest]) + "\n")
    assert main(["compare", "model0000", "model0001", f"results={copy}", "permutations=99"]) == 0
    assert "39 samples; 1 that lack" in capsys.readouterr().out
    pairing = pair(find_run(copy, "model0000"), find_run(copy, "model0001"), "embedded")
    assert by_sample(pairing, "rouge")["difference"].isna().tolist() == [False] * 39 + [True]


def test_metrics_that_are_not_the_same_are_not_compared(results, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    run = find_run(copy, "model0001")
    record = read_json(run.folder / "scores" / "embedded.json")
    record["columns"]["rouge"]["signature"] = "rouge|v=2"
    record["columns"]["bleurt"] = {"missing": "no checkpoint"}
    write_json(run.folder / "scores" / "embedded.json", record)
    pairing = pair(find_run(copy, "model0000"), find_run(copy, "model0001"), None)
    assert "rouge|v=2" in pairing.unfilled["rouge"]
    assert pairing.unfilled["bleurt"] == "B has no values: no checkpoint"
    assert list(pairing.values[0].columns) == ["similarity", "bertscore", "umls_f1", "alignscore", "factuality"]


def test_other_samples_are_refused_with_what_differs(results, tmp_path, capsys):
    other = made_up(tmp_path / "other", runs=1, samples=45)
    victim = find_run(other, "model0000").folder
    shutil.copytree(results, tmp_path / "both")
    shutil.copytree(victim, tmp_path / "both" / "runs" / "longer-1234567890")
    assert main(["compare", "model0001", "longer", f"results={tmp_path / 'both'}"]) == 2
    error = capsys.readouterr().err
    assert "n_requested: 40 -> 45" in error
    assert "5 samples only in B: image_000040" in error
    changed = read_json(results / "runs" / find_run(results, "model0000").folder.name / "manifest.json")
    changed["identity"]["data"] = "other pictures"
    write_json(tmp_path / "both" / "runs" / find_run(results, "model0000").folder.name / "manifest.json", changed)
    assert main(["compare", "model0000", "model0001", f"results={tmp_path / 'both'}"]) == 2
    assert "the ids and references are the same; the pictures" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model0000"], "expected two runs"),
        (["model0000", "model0001", "metric=rogue"], "did you mean 'rouge'"),
        (["model0000", "model0001", "protocol=paper"], "embedded"),
        (["model0000", "model0001", "out=a.txt"], ".csv"),
        (["model0000", "model0001", "tpo=3"], "did you mean 'top'"),
        (["model0000", "model0001-targetted-plain-s0"], "the nearest are"),
    ],
)
def test_a_wrong_request_is_one_line(results, words, expected, capsys):
    assert main(["compare", *words, f"results={results}"]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_a_run_is_found_by_folder_name_id_and_beginning(results):
    runs = find_runs(results)
    one = runs[1]
    for text in (str(one.folder), one.folder.name, one.row["run_id"], one.folder.name[:9], one.row["run_id"][:6]):
        assert find_run(results, text).folder == one.folder
    with pytest.raises(RequestError, match="stands for 3"):
        find_run(results, "model000")
    with pytest.raises(RequestError, match="stands for 3"):
        find_run(results, "")
    with pytest.raises(RequestError, match="start with `capbench run`"):
        find_run(results / "nowhere", "model")
