"""What was edited, damaged or swapped is found, listed and never ranked."""

import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from harness.cli import main
from harness.commands.reproduce import surroundings
from harness.store import Journal, JournalRow, file_digest, locked, read_json, read_manifest, write_json
from harness.store.runs import find_run
from tests.support.commands import SMALL, only


def forge(run: Path) -> None:
    """Edit the captions as someone would who knows how row checksums are made."""
    journal = Journal(run / "captions.jsonl")
    rows = [JournalRow(vars(row) | {"caption": f"better {row.caption}"}) for row in journal.rows()]
    journal.path.unlink()
    journal.append(rows)


def edit_scores(run: Path) -> Path:
    """Raise the first value of a score file."""
    path = sorted(run.glob("scores/rouge1-*.csv"))[0]
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[0, "f1"] = "1.0"
    table.to_csv(path, index=False, lineterminator="\n")
    return path


def swap_adapter(results: Path) -> None:
    fit = only(results, "fits/smolvlm-*") / "adapter/adapter_model.safetensors"
    content = bytearray(fit.read_bytes())
    content[-1] ^= 1
    fit.write_bytes(content)


def rename(results: Path) -> None:
    run = only(results, "runs/smolvlm-none-*")
    run.rename(run.with_name("smolvlm-none-plain-0000000000"))


def copy(results: Path) -> None:
    run = only(results, "runs/smolvlm-none-*")
    shutil.copytree(run, run.with_name(f"another-{run.name}"))


def edit_identity(results: Path) -> None:
    path = only(results, "runs/smolvlm-none-*") / "manifest.json"
    path.write_text(path.read_text().replace('"repetition_penalty": 1.0', '"repetition_penalty": 1.5', 1))


def edit_row(results: Path) -> None:
    run = only(results, "runs/smolvlm-none-*")
    manifest = read_manifest(run)
    manifest["row"]["n_ok"] = 7
    write_json(run / "manifest.json", manifest)


def edit_texts(results: Path) -> None:
    path = only(results, "runs/smolvlm-none-*") / "scores/embedded.json"
    write_json(path, read_json(path) | {"texts": "0" * 64})


def tear(path: Path) -> None:
    path.write_text("{ torn")


TAMPERED = {
    "edited captions": (lambda r: forge(only(r, "runs/smolvlm-none-*")), "captions.jsonl", "edited or damaged"),
    "edited scores": (lambda r: edit_scores(only(r, "runs/smolvlm-none-*")), "scores/rouge1-", "edited or damaged"),
    "missing scores": (
        lambda r: next(only(r, "runs/smolvlm-none-*").glob("scores/bleurt*")).unlink(),
        "bleurt",
        "gone",
    ),
    "scores of other captions": (edit_texts, "scores/embedded.json", "other captions"),
    "torn score record": (
        lambda r: tear(only(r, "runs/smolvlm-none-*/scores/embedded.json")),
        "embedded",
        "got damage",
    ),
    "other score record": (
        lambda r: write_json(only(r, "runs/smolvlm-none-*/scores/embedded.json"), []),
        "embedded",
        "other",
    ),
    "swapped adapter": (swap_adapter, "adapter/adapter_model.safetensors", "edited or damaged"),
    "foreign file": (
        lambda r: tear(only(r, "fits/smolvlm-*") / "adapter/extra.bin"),
        "adapter/extra.bin",
        "not written by",
    ),
    "renamed folder": (rename, "smolvlm-none-plain-0000000000", "renamed"),
    "copied folder": (copy, "another-smolvlm", "has the identity of"),
    "edited identity": (edit_identity, "smolvlm-none", "the identity hashes to"),
    "edited counts": (edit_row, "captions.jsonl", "8 samples with 7 captions"),
    "torn manifest": (lambda r: tear(only(r, "runs/smolvlm-none-*/manifest.json")), "manifest.json", "got damage"),
    "edited table": (
        lambda r: (r / "leaderboard.csv").write_text("rank\n1\n"),
        "leaderboard.csv",
        "not what a rebuild",
    ),
}


def test_an_untouched_folder_passes(results, capsys):
    assert main(["verify", f"results={results}"]) == 0
    assert "0 problems" in capsys.readouterr().out


@pytest.mark.parametrize("case", TAMPERED)
def test_verify_names_what_is_wrong(results, case, capsys, monkeypatch):
    monkeypatch.setattr("harness.machine.terminal.console.width", 300)  # no cell is broken into lines
    tamper, place, words = TAMPERED[case]
    tamper(results)
    assert main(["verify", f"results={results}"]) == 1
    text = capsys.readouterr().out
    assert place in text
    assert words in text


def test_verify_looks_at_what_is_named_alone(results):
    forge(only(results, "runs/smolvlm-none-*"))
    assert main(["verify", "smolvlm-targeted", "fits/smolvlm", f"results={results}"]) == 0
    assert main(["verify", "smolvlm-targeted", "smolvlm-none", f"results={results}"]) == 1
    assert main(["verify", "smolvlm-targeted-plain-s1", f"results={results}"]) == 2


def test_verify_accepts_any_of_several_tables_as_the_plain_one(results):
    small = [item for item in SMALL if not item.startswith("dataset.test")]
    assert main(["run", "model=smolvlm", "lora=none", "dataset.test=5", f"results={results}", *small]) == 0
    assert main(["verify", f"results={results}"]) == 0
    older = next(
        p for p in results.glob("leaderboard-*.csv") if p.read_bytes() != (results / "leaderboard.csv").read_bytes()
    )
    shutil.copy(older, results / "leaderboard.csv")
    assert main(["verify", f"results={results}"]) == 0


def test_verify_leaves_out_what_a_process_works_on(results, capsys):
    run = only(results, "runs/smolvlm-none-*")
    forge(run)
    with locked(run):
        assert main(["verify", f"results={results}", "tables=false"]) == 0
    assert "1 unfinished or in use" in capsys.readouterr().out


# ---------------------------------------------------------------- the tables


@pytest.mark.parametrize("tamper", [forge, edit_scores, lambda run: next(run.glob("scores/*.csv")).unlink()])
def test_a_tampered_run_is_listed_with_the_reason_and_not_ranked(results, tamper, capsys):
    victim = only(results, "runs/smolvlm-targeted-*")
    tamper(victim)
    assert main(["leaderboard", f"results={results}"]) == 0
    assert victim.name in capsys.readouterr().err.replace("\n", "")
    runs = pd.read_csv(results / "runs.csv").set_index("run_id")
    failed = runs[runs["status"] == "failed"]
    assert list(failed.index) == [victim.name.rpartition("-")[2]]
    assert "capbench score" in failed["error"].item() or "put the file back" in failed["error"].item()
    assert failed.index[0] not in set(pd.read_csv(results / "scores.csv")["run_id"])
    board = pd.read_csv(results / "leaderboard.csv").set_index(["model", "strategy"])
    assert board["rank"].isna().sum() == 1
    assert board.loc[("smolvlm", "targeted"), ["rank", "overall", "rouge"]].isna().all()


def test_scoring_makes_edited_scores_again_and_does_not_take_them_over(results, sweep, capsys):
    """A record rewritten from the file as it lies there would make the edit official."""
    path = edit_scores(only(results, "runs/smolvlm-none-*"))
    assert main(["score", f"results={results}"]) == 0
    assert "edited or damaged; made again" in capsys.readouterr().err.replace("\n", " ")
    assert file_digest(path) == file_digest(sweep / path.relative_to(results))
    assert (results / "leaderboard.csv").read_bytes() == (sweep / "leaderboard.csv").read_bytes()
    assert main(["verify", f"results={results}"]) == 0


def test_edited_captions_stay_refused_after_scoring(results):
    forge(only(results, "runs/smolvlm-none-*"))
    assert main(["score", f"results={results}"]) == 0
    assert main(["verify", f"results={results}"]) == 1
    board = pd.read_csv(results / "leaderboard.csv").set_index(["model", "strategy"])
    assert board["rank"].isna().to_dict() == {key: key == ("smolvlm", "none") for key in board.index}


# ---------------------------------------------------------------- reproduce


@pytest.mark.parametrize("name", ["smolvlm-none", "smolvlm-targeted"])
def test_a_run_is_reproduced_from_its_manifest_alone(results, tmp_path, name, capsys):
    again = tmp_path / "again"
    assert main(["reproduce", name, f"source={results}", f"results={again}"]) == 0
    text = capsys.readouterr().out
    assert "captions: 0 of 8 differ" in text
    assert "scores: 0 of 6 columns differ" in text
    first, second = find_run(results, name), find_run(again, name)
    assert first.folder.name == second.folder.name
    assert [row.caption for row in first.rows] == [row.caption for row in second.rows]
    assert main(["reproduce", name, f"source={results}", f"results={again}"]) == 0
    assert "done before" in capsys.readouterr().out
    assert main(["verify", f"results={again}"]) == 0


def test_other_captions_and_other_surroundings_are_told(results, tmp_path, capsys):
    folder = only(results, "runs/smolvlm-none-*")
    forge(folder)
    manifest = read_manifest(folder)
    manifest["files"]["captions.jsonl"] = file_digest(folder / "captions.jsonl")
    manifest["environment"]["packages"]["torch"] = "1.0"
    manifest["code_version"] = "another"
    write_json(folder / "manifest.json", manifest)
    assert [line.split(":")[0] for line in surroundings(find_run(results, folder.name))] == [
        "code_version",
        "packages.torch",
    ]
    assert main(["reproduce", folder.name, f"source={results}", f"results={tmp_path / 'again'}"]) == 1
    said = capsys.readouterr()
    assert "captions: 8 of 8 differ" in said.out
    assert "and 3 more" in said.out
    assert 'packages.torch: "1.0" ->' in said.err


def test_other_scores_are_told(results, tmp_path, capsys):
    folder = only(results, "runs/smolvlm-none-*")
    path = edit_scores(folder)
    record = folder / "scores/embedded.json"
    old = json.loads(record.read_text())["columns"]["rouge"]["sha256"]
    record.write_text(record.read_text().replace(old, hashlib.sha256(path.read_bytes()).hexdigest()))
    assert main(["reproduce", folder.name, f"source={results}", f"results={tmp_path / 'again'}"]) == 1
    text = capsys.readouterr().out
    assert "captions: 0 of 8 differ" in text
    assert "scores: 1 of 6 columns differ" in text
    assert "embedded rouge:" in text


def test_what_cannot_be_reproduced_is_refused(results, tmp_path, capsys):
    again = f"results={tmp_path / 'again'}"
    assert main(["reproduce", "fits/smolvlm", f"source={results}", again]) == 2
    assert main(["reproduce", "smolvlm-none", f"source={results}", f"results={results}"]) == 2
    assert "holds the run itself" in capsys.readouterr().err
    forge(only(results, "runs/smolvlm-none-*"))
    assert main(["reproduce", "smolvlm-none", f"source={results}", again]) == 2
    assert "nothing to compare with" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()
