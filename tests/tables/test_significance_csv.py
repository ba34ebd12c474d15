"""significance.csv, agreement.csv and subgroups.csv: against scipy and the other tables, whole and rebuilt alike."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, permutation_test, spearmanr

from harness.store import Journal, JournalRow, file_digest, read_json, write_json
from harness.store.runs import find_runs
from harness.store.scores import read_scores
from harness.tables import columns, significance
from harness.tables.boards import Ranked
from harness.tables.formulas import formula
from harness.tables.labels import labels
from harness.tables.rebuild import rebuild
from harness.tables.stats import holm
from harness.tables.subgroups import divisions
from tests.support.commands import capbench
from tests.support.results import PARTS, contents, made_up

TABLES = ("significance.csv", "agreement.csv", "subgroups.csv", "scores.csv", "leaderboard.csv")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = made_up(tmp_path_factory.mktemp("made-up"))
    rebuild(folder, 300, 2000)
    return folder


def samples_of(results: Path) -> dict[str, pd.DataFrame]:
    """Row -> its samples.csv with the composites."""
    found = {}
    for run in find_runs(results):
        table = pd.read_csv(run.folder / "samples.csv")
        table["relevance"] = table[PARTS].mean(axis=1)
        table["overall"] = (table["relevance"] + table[["umls_f1", "alignscore"]].mean(axis=1)) / 2
        found["/".join(str(run.row[name]) for name in columns.ROW_COLUMNS)] = table
    return found


def check_significance(results: Path, count: int) -> pd.DataFrame:
    """Differences and p-values of some pairs, made again from samples.csv by scipy."""
    table, samples = pd.read_csv(results / "significance.csv"), samples_of(results)
    assert tuple(table.columns) == columns.SIGNIFICANCE_COLUMNS
    for row in table[table["metric"].isin(["overall", "rouge"])].iloc[::7].head(count).to_dict("records"):
        one, other = (samples[row[name]][row["metric"]].to_numpy() for name in ("row_a", "row_b"))
        assert row["difference"] == pytest.approx((one - other).mean(), abs=1e-5)
        assert row["ci_low"] <= row["difference"] + 1e-9
        assert row["difference"] <= row["ci_high"] + 1e-9
        theirs = permutation_test(
            (one, other),
            lambda a, b, axis: np.mean(a - b, axis=axis),
            permutation_type="samples",
            n_resamples=2000,
            vectorized=True,
            rng=np.random.default_rng(0),
        )
        assert row["p"] == pytest.approx(theirs.pvalue, abs=0.06)
    return table


def test_pairs_are_all_there_and_their_p_values_are_scipys(results):
    table = check_significance(results, 6)
    assert len(table) == 15 * 9
    assert set(table["family"]) == {"all pairs"}
    order = [
        "/".join(map(str, row)) for row in pd.read_csv(results / "leaderboard.csv")[list(columns.ROW_COLUMNS)].values
    ]
    for _, column in table.groupby("metric"):
        np.testing.assert_allclose(column["p_holm"], holm(column["p"].to_numpy()), rtol=1e-5)
        assert [order.index(a) < order.index(b) for a, b in zip(column["row_a"], column["row_b"], strict=True)] == [
            True
        ] * 15


def test_the_shared_sweep_has_all_three(sweep):
    check_significance(sweep, 5)
    for name, expected in (("agreement.csv", columns.AGREEMENT_COLUMNS), ("subgroups.csv", columns.SUBGROUP_COLUMNS)):
        table = pd.read_csv(sweep / name)
        assert tuple(table.columns) == expected
        assert len(table)
    assert {"modality", "caption_length", "concepts"} == set(pd.read_csv(sweep / "subgroups.csv")["by"])


def test_a_long_board_has_the_best_row_of_each_column_and_the_next(results, tmp_path, monkeypatch):
    monkeypatch.setattr(significance, "NEXT", 3)
    shutil.copytree(results, tmp_path / "long")
    (board,) = rebuild(tmp_path / "long", 300, permutations=200)  # 15 pairs need 300
    table = pd.read_csv(tmp_path / "long" / "significance.csv")
    assert set(table["family"]) == {"best row and the next 3"}
    means = board.table.assign(row=["/".join(map(str, row)) for row in board.table[list(columns.ROW_COLUMNS)].values])
    every = pd.read_csv(results / "significance.csv").set_index(["metric", "row_a", "row_b"])
    for name, column in table.groupby("metric"):
        order = list(means.sort_values(name, ascending=False)["row"])
        assert set(column["row_a"]) == {order[0]}
        assert list(column["row_b"]) == order[1:4]
        for row in column.to_dict("records"):
            key = (name, row["row_a"], row["row_b"])
            sign, key = (1, key) if key in every.index else (-1, (name, row["row_b"], row["row_a"]))
            assert row["difference"] == pytest.approx(sign * every.loc[key, "difference"], rel=1e-4)
            assert row["p"] == pytest.approx(every.loc[key, "p"], abs=0.1)


def test_the_best_of_many_equal_rows_differs_from_none_of_the_next():
    rng, names = np.random.default_rng(0), tuple(f"row{n}" for n in range(60))
    found = 0
    for _ in range(100):
        values = rng.normal(size=(1, 50, 1)) + rng.gamma(1, size=(60, 50, 1))
        means = values.mean(axis=1)[None]
        used = np.ones(50, dtype=bool)
        ranked = Ranked(names, formula({"rouge": {}}, {}), frozenset(), values, values, means, None, used)
        table = significance.significance_table(ranked, 2000)
        assert set(table["family"]) == {"best row and the next 20"}
        found += table["p_holm"].min() <= 0.05
    assert found <= 5


def test_seeds_of_a_row_are_averaged_sample_by_sample(tmp_path):
    results = made_up(tmp_path, runs=4, samples=30, seeds=2)
    rebuild(results, 100, 500)
    table = pd.read_csv(results / "significance.csv")
    runs = find_runs(results)
    rows = {model: [] for model in {run.row["model"] for run in runs}}
    for run in runs:
        rows[run.row["model"]].append(pd.read_csv(run.folder / "samples.csv")["rouge"])
    (row,) = table[table["metric"] == "rouge"].to_dict("records")
    one, other = (sum(rows[row[name].partition("/")[0]]) / 2 for name in ("row_a", "row_b"))
    assert row["difference"] == pytest.approx((one - other).mean(), abs=1e-5)
    assert row["n"] == 30


def test_one_row_alone_has_no_pair(tmp_path):
    rebuild(made_up(tmp_path, runs=1), 50, 100)
    assert (tmp_path / "significance.csv").read_text() == ",".join(columns.SIGNIFICANCE_COLUMNS) + "\n"
    assert pd.read_csv(tmp_path / "agreement.csv").query("level == 'system'")["spearman"].isna().all()


def test_agreement_is_scipys(results):
    table = pd.read_csv(results / "agreement.csv")
    assert len(table) == 2 * 15
    means, samples = pd.read_csv(results / "leaderboard.csv"), samples_of(results).values()
    for row in table.to_dict("records"):
        one, other = row["metric_a"], row["metric_b"]
        sources = [means] if row["level"] == "system" else samples
        rho = np.mean([spearmanr(source[one], source[other]).statistic for source in sources])
        tau = np.mean([kendalltau(source[one], source[other]).statistic for source in sources])
        near = 1e-3  # the files have 6 digits: what they round to one value ties
        assert (row["spearman"], row["kendall"]) == (pytest.approx(rho, abs=near), pytest.approx(tau, abs=near))
        assert row["rows"] == 6


def test_subgroups_share_out_the_samples(results):
    table, board = (
        pd.read_csv(results / "subgroups.csv", dtype={"group": str}),
        pd.read_csv(results / "leaderboard.csv"),
    )
    samples = samples_of(results)
    for (row, metric, by), part in table.groupby(["row", "metric", "by"]):
        assert part["n"].sum() == 40, by
        whole = board.loc[board["model"] == row.partition("/")[0], metric].item()
        assert (part["value"] * part["n"]).sum() / 40 == pytest.approx(whole, abs=1e-5)
        several = part[part["n"] > 1]
        assert (several["ci_low"] <= several["value"] + 1e-9).all()
        assert (several["value"] <= several["ci_high"] + 1e-9).all()
        assert part.loc[part["n"] == 1, ["ci_low", "ci_high"]].isna().all().all()
    one = table[(table["by"] == "modality") & (table["metric"] == "rouge")].iloc[0]
    mine = samples[one["row"]]
    assert one["value"] == pytest.approx(mine.loc[mine["modality"] == one["group"], "rouge"].mean(), abs=1e-5)


def test_subgroups_by_hand():
    references = ["a", "a b", "a b c", "a b c d", "a b c d e", "a b c d e f"]
    counts = [0, 1, 5, 9, 1, 0]
    facts = [
        JournalRow({"reference": text, "modality": "CT", "concepts": ["C"] * count})
        for text, count in zip(references, counts, strict=True)
    ]
    found = {by: {k: mask.nonzero()[0].tolist() for k, mask in parts.items()} for by, parts in divisions(facts).items()}
    assert found == {
        "caption_length": {"1-2 words": [0, 1], "3-4 words": [2, 3], "5-6 words": [4, 5]},
        "concepts": {"0": [0, 5], "1": [1, 4], "5 or more": [2, 3]},
    }, "one modality divides nothing"


def test_journals_without_concepts_leave_that_division_out(tmp_path):
    results = made_up(tmp_path, runs=2)
    for run in find_runs(results):
        rows = [{key: value for key, value in vars(row).items() if key != "concepts"} for row in run.rows]
        (run.folder / "captions.jsonl").unlink()
        Journal(run.folder / "captions.jsonl").append(map(JournalRow, rows))
    rebuild(results, 50, 100)
    assert set(pd.read_csv(results / "subgroups.csv")["by"]) == {"modality", "caption_length"}


def test_runs_write_their_concepts_down(sweep):
    for run in find_runs(sweep)[:3]:
        assert all(row.concepts and all(c.startswith("C") for c in row.concepts) for row in run.rows)


# ---------------------------------------------------------------- the same bytes, whatever was kept


def test_every_table_is_rebuilt_to_the_byte_with_and_without_what_was_kept(sweep, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(sweep / "runs", copy / "runs")
    for path in copy.glob("runs/*/samples.csv"):
        path.unlink()
    for _ in range(2):
        done = capbench(["leaderboard", f"results={copy}"], tmp_path)
        assert done.returncode == 0, done.stderr
        assert contents(copy) == contents(sweep)


def test_only_changed_samples_are_written_again(results, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    before = contents(copy)
    stamps = {path: path.stat().st_mtime_ns for path in copy.glob("runs/*/samples.csv")}
    first, second, *others = sorted(stamps)
    first.write_bytes(first.read_bytes()[:-1] + b"#")  # of the same size
    scores = next((second.parent / "scores").glob("rouge-*.csv"))
    known = file_digest(scores)
    scores.write_text(scores.read_text().replace("image_000000,0.", "image_000000,9.", 1))
    for record in scores.parent.glob("*.json"):  # as if it had been scored so
        record.write_text(record.read_text().replace(known, file_digest(scores)))
    rebuild(copy, 300, 2000)
    assert first.read_bytes() == before[str(first.relative_to(copy))], "what was edited is made again"
    assert pd.read_csv(second)["rouge"].max() > 9, "another score is another row"
    assert [path.stat().st_mtime_ns for path in others] == [stamps[path] for path in others]
    (copy / "cache" / "samples.json").write_text("{ torn")
    rebuild(copy, 300, 2000)
    assert json.loads((copy / "cache" / "samples.json").read_text()).keys() == {path.parent.name for path in stamps}


@pytest.mark.parametrize("name", ["plain", 'with "quotes", commas', "two\nlines"])
def test_scores_are_the_same_however_they_are_read(tmp_path, name):
    values, path = [0.1 + 0.2, None, 1e-300, -3.0], tmp_path / "m.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "f1", "truncated", "reason"])
        writer.writerows([f"{name}{n}", "" if v is None else repr(v), n, ""] for n, v in enumerate(values))
    kept: dict[str, bytes] = {}
    for known in (None, kept, kept):
        found = read_scores(path, known)
        assert found.values["f1"].tolist() == pytest.approx([0.1 + 0.2, np.nan, 1e-300, -3.0], abs=0, nan_ok=True)
        assert found.values["truncated"].tolist() == [0, 1, 2, 3]
    assert list(kept) == [found.digest]


def test_damaged_scores_are_named(results, tmp_path, capsys):
    from harness.cli import main

    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    victim = next(copy.glob("runs/*/scores/rouge-*.csv"))
    for text in (victim.read_text().replace(",0.", ",zero.", 1), victim.read_text() + "image_x,1\n", None):
        victim.unlink() if text is None else victim.write_text(text)
        assert main(["leaderboard", f"results={copy}"]) == 0
        said = capsys.readouterr().err
        assert victim.name in said
        assert "capbench score" in said
        runs = pd.read_csv(copy / "runs.csv")
        assert (runs["status"] == "failed").sum() == 1
        assert len(pd.read_csv(copy / "leaderboard.csv")["rank"].dropna()) == len(runs) - 1


def test_rows_of_the_same_name_and_options_are_told_apart(results):
    run = find_runs(results)[0]
    found = labels({"abcdef123": run, "fedcba321": run})
    assert [label["strategy"] for label in found.values()] == ["targeted[abcdef]", "targeted[fedcba]"]


def test_a_metric_where_less_is_better_has_the_least_as_its_best_row(results, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    for path in copy.glob("runs/*/scores/embedded.json"):
        record = read_json(path)
        record["columns"]["rouge"]["higher_is_better"] = False
        write_json(path, record)
    (board,) = rebuild(copy, 100, permutations=50)
    table = pd.read_csv(copy / "significance.csv")
    least = board.table.loc[board.table["rouge"].idxmin(), "model"]
    assert {row.partition("/")[0] for row in table.loc[table["metric"] == "rouge", "row_a"]} == {least}
    assert (table.loc[table["metric"] == "rouge", "difference"] < 0).all()


def test_runs_without_a_score_in_common_are_listed_and_the_remedy_is_said(tmp_path):
    """As after a protocol's columns were renamed, and one more run was scored."""
    results = made_up(tmp_path, runs=3, samples=20)
    record = next((results / "runs").glob("*/scores/embedded.json"))
    known = read_json(record)
    renamed = {f"my_{name}": column for name, column in known["columns"].items()}
    protocol = known["protocol"] | {"columns": {f"my_{n}": c for n, c in known["protocol"]["columns"].items()}}
    write_json(record, known | {"columns": renamed, "protocol": protocol | {"averages": {}, "primary": "my_rouge"}})
    (board,) = rebuild(results, 50, 50)
    assert board.table["rank"].isna().all()
    assert "repeat `capbench score protocol=embedded`" in board.unfilled["rouge"]
