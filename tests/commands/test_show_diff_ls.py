"""Looking at what lies in a results folder: names, show, diff, ls. Nothing of it changes a file."""

import json
import shutil
from datetime import UTC, datetime

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.choices import pick
from harness.cli import main
from harness.commands.diff import changes, compare
from harness.commands.ls import disk
from harness.contracts import RequestError
from harness.store import locked, read_manifest, write_json
from harness.store.inventory import age, disk_use, inventory, patterns
from harness.store.runs import find_run, find_run_or_fit, find_runs
from tests.support.commands import only

# ---------------------------------------------------------------- names


def test_a_run_is_found_by_id_folder_prefix_path_and_its_fit(sweep):
    folder = only(sweep, "runs/smolvlm-targeted-*")
    row = read_manifest(folder)["row"]
    for text in (row["run_id"], row["run_id"][:6], folder.name, folder.name[:18], row["fit_id"]):
        assert find_run(sweep, text).folder == folder
    for text in (row["run_id"], folder.name[:18], f"runs/{folder.name[:18]}", str(folder)):
        assert find_run_or_fit(sweep, text).folder == folder
    fit = only(sweep, "fits/smolvlm-targeted-*")
    for text in (row["fit_id"], fit.name, "fits/smolvlm", str(fit)):
        assert find_run_or_fit(sweep, text).folder == fit


def test_a_zero_shot_fit_has_no_folder_and_stands_for_its_run(sweep):
    folder = only(sweep, "runs/smolvlm-none-*")
    assert find_run_or_fit(sweep, read_manifest(folder)["row"]["fit_id"]).folder == folder


def test_an_ambiguous_prefix_and_an_unknown_name_say_what_there_is(sweep):
    with pytest.raises(RequestError, match=r"stands for 2: .*smolvlm-none.*smolvlm-targeted"):
        find_run(sweep, "smolvlm")
    with pytest.raises(RequestError, match=r"nearest are runs/smolvlm-targeted-plain-s0"):
        find_run(sweep, "smolvlm-targetted-plain-s0")
    with pytest.raises(RequestError, match="start with `capbench run`"):
        find_run(sweep / "fits", "smolvlm")


@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, unique=True), st.text("ab", max_size=3))
def test_a_name_is_taken_exactly_before_it_is_taken_as_a_prefix(names, text):
    pairs = [(name, name) for name in names]
    starting = [name for name in names if name.startswith(text)]
    if text in names or len(starting) == 1:
        assert pick(text, [pairs], str) == (text if text in names else starting[0])
    else:
        with pytest.raises(RequestError):
            pick(text, [pairs], str)


# ---------------------------------------------------------------- show


def test_show_says_what_a_run_is_and_where_it_comes_from(results, capsys):
    folder = only(results, "runs/smolvlm-targeted-*")
    manifest = read_manifest(folder)
    assert main(["show", "smolvlm-targeted", f"results={results}"]) == 0
    text = capsys.readouterr().out
    scores = pd.read_csv(results / "scores.csv").query("run_id == @manifest['row']['run_id']")
    overall = scores.set_index("metric").loc["overall"]
    assert f"{overall['value']:.4f} [{overall['ci_low']:.4f}, {overall['ci_high']:.4f}], n 8" in text
    for word in (manifest["row"]["fit_id"], manifest["code_version"], "smolvlm", "phantom", "captions.jsonl"):
        assert word in text
    assert f"{sum(manifest['plan']['counts'].values()):,}" in text
    assert "model.text_model.layers.*.self_attn.q_proj x 2" in text
    assert f"capbench reproduce {folder}" in text.replace("\n", " ")
    assert "not as it was written" not in text


def test_show_of_a_fit_names_the_runs_that_use_it(results, capsys):
    assert main(["show", "fits/smolvlm", f"results={results}"]) == 0
    text = capsys.readouterr().out
    assert "final_loss" in text
    assert only(results, "runs/smolvlm-targeted-*").name in text
    assert "adapter/" in text


def test_show_of_damaged_files_says_so_and_shows_the_rest(results, capsys):
    folder = only(results, "runs/smolvlm-none-*")
    next(folder.glob("scores/*.csv")).unlink()
    assert main(["show", folder.name, f"results={results}"]) == 0
    text = capsys.readouterr().out
    assert "is gone" in text
    assert "n_requested" in text
    (folder / "manifest.json").write_text("{ torn")
    assert main(["show", folder.name, f"results={results}"]) == 0
    assert "expected JSON, got damage" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["show"], ["show", "a", "b"], ["diff", "a"], ["reproduce"], ["show", "nothing-like-it"]]
)
def test_a_wrong_number_of_names_or_a_wrong_one_is_refused_in_one_line(results, words, capsys):
    key = "source" if words[0] == "reproduce" else "results"
    assert main([*words, f"{key}={results}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# ---------------------------------------------------------------- diff


def test_a_run_differs_from_itself_in_nothing(results, capsys):
    assert main(["diff", "smolvlm-none", "smolvlm-none", f"results={results}"]) == 0
    assert "equal: status, identity, configuration, code version, environment" in capsys.readouterr().out


def test_diff_names_each_difference_and_sums_up_the_rest(results, capsys):
    folder = only(results, "runs/smolvlm-none-*")
    manifest = read_manifest(folder)
    manifest["environment"]["packages"]["torch"] = "1.0"
    manifest["code_version"] = "another"
    write_json(folder / "manifest.json", manifest)
    assert main(["diff", folder.name, "smolvlm-targeted", f"results={results}"]) == 0
    text = capsys.readouterr().out
    for line in (
        'lora.name: "none" -> "targeted"',
        'packages.torch: "1.0" ->',
        'code: "another" ->',
        "train_seconds: null ->",
    ):
        assert line in text
    assert "of 8 common samples have another caption" in text
    assert "embedded overall:" in text
    assert "equal: status" in text


def test_two_runs_with_fits_differ_in_their_whole_identities(sweep):
    left, right = (find_run(sweep, name) for name in ("smolvlm-targeted", "qwen2_vl-targeted"))
    lines = compare(left, right, trials=10)["identity"]
    assert any(line.startswith("fit.captioner.name: ") for line in lines)
    assert any("fit.strategy.plan.adapted.model" in line for line in lines)
    assert "plan" not in compare(left, right, trials=10)


def test_two_fits_are_compared_and_a_fit_with_a_run_is_refused(results, capsys):
    assert main(["diff", "fits/smolvlm", "fits/qwen2_vl", f"results={results}"]) == 0
    assert 'captioner.name: "smolvlm" -> "qwen2_vl"' in capsys.readouterr().out
    assert main(["diff", "fits/smolvlm", "runs/smolvlm-none", f"results={results}"]) == 2
    assert "two runs or two fits" in capsys.readouterr().err


def test_lists_of_modules_differ_by_pattern():
    layers = [f"model.layers.{n}.{m}" for n in range(12) for m in ("q_proj", "k_proj")]
    assert changes({"a": layers}, {"a": layers[:-2]}) == [
        "a.model.layers.*.k_proj: 1 -> null",
        "a.model.layers.*.q_proj: 1 -> null",
    ]
    assert changes({"a": layers}, {"a": list(layers)}) == []
    assert changes({"a": ["x", "y"]}, {"a": ["y", "x"]}) != []  # the order is part of a value
    assert patterns(["a.1.b", "a.22.b", "a1.b"]) == {"a.*.b": 2, "a1.b": 1}


# ---------------------------------------------------------------- ls


def test_ls_lists_every_folder_and_its_size(results, tmp_path, capsys):
    assert main(["ls", f"results={results}", f"out={tmp_path / 'ls.csv'}"]) == 0
    text = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "ls.csv").set_index("folder")
    folders = [path for kind in ("fits", "runs") for path in (results / kind).iterdir()]
    assert set(table.index) == {folder.name for folder in folders}
    for folder in folders:
        assert folder.name in text
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert table.loc[folder.name, "bytes"] == sum(path.stat().st_size for path in files)
    assert set(table["status"]) == {"ok"}
    assert not table["orphaned"].any()
    assert (table.loc[table["kind"] == "fit", "users"] == 1).all()
    sizes = disk(results, inventory(results))
    assert sum(sizes.values()) == 2 * sizes["all"] == 2 * disk_use(results)


def test_ls_tells_orphaned_unfinished_failed_and_running_apart(results):
    state = {item.folder.name: item for item in inventory(results)}
    assert not any(item.orphaned for item in state.values())
    shutil.rmtree(only(results, "runs/smolvlm-targeted-*"))
    (only(results, "fits/qwen2_vl-*") / "manifest.json").unlink()
    failed = only(results, "runs/llava_15-none-*")
    write_json(failed / "manifest.json", read_manifest(failed) | {"status": "failed"})
    (only(results, "runs/moondream2-none-*") / "manifest.json").write_text("{")
    running = only(results, "runs/idefics_9b-none-*")
    (running / "manifest.json").unlink()
    with locked(running):
        state = {item.folder.name: item for item in inventory(results)}
    assert state[only(results, "fits/smolvlm-*").name].orphaned
    assert state[only(results, "fits/qwen2_vl-*").name].status == "unfinished"
    assert state[failed.name].status == "failed"
    assert state[only(results, "runs/moondream2-none-*").name].status == "damaged"
    assert state[running.name].status == "running"
    assert inventory(results) != []
    assert state[running.name].seed is None, "a run without training has none in its name"


def test_a_fit_whose_run_is_not_finished_is_not_orphaned(results):
    """All that is known of such a run is its name; a modality source stands in it before the seed."""
    (run, fit) = (only(results, f"{kind}/smolvlm-targeted-*") for kind in ("runs", "fits"))
    (run / "manifest.json").unlink()
    kept = {item.folder.name: item for item in inventory(results)}
    assert not kept[fit.name].orphaned
    run.rename(run.with_name("smolvlm-targeted-plain-oracle-s0-0123456789"))
    assert not {item.folder.name: item for item in inventory(results)}[fit.name].orphaned
    (results / "runs/smolvlm-targeted-plain-oracle-s0-0123456789").rename(run.with_name("smolvlm-targeted-plain-s1-01"))
    assert {item.folder.name: item for item in inventory(results)}[fit.name].orphaned


def test_nothing_that_looks_writes(results):
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    for words in (["show", "smolvlm-none"], ["diff", "smolvlm-none", "smolvlm-targeted"], ["ls"], ["verify"]):
        assert main([*words, f"results={results}"]) == 0
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*")} == before


def test_ages_are_in_the_largest_unit_that_says_something():
    now = datetime(2026, 3, 10, 12, tzinfo=UTC)
    times = ("2026-03-10T11:55:00Z", "2026-03-10T07:00:00Z", "2026-03-01T12:00:00Z", "2026-03-10T12:05:00Z")
    assert [age(time, now) for time in times] == ["5 min", "5 h", "9 d", "0 min"]


def test_a_link_counts_as_a_link(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "big").write_bytes(b"0" * 10_000)
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "outside")
    assert disk_use(tmp_path / "inside") < 1000
    assert disk_use(tmp_path / "nowhere") == 0


def test_runs_are_json_all_through(sweep):
    """The commands above read manifests alone: every run's is whole."""
    assert all(json.dumps(run.manifest) for run in find_runs(sweep))
