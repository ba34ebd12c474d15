"""Deleting: what is asked for, after a question, and never what is in use or lies elsewhere."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.cli import main
from harness.commands.clean import KINDS
from harness.store import file_digest, locked, read_manifest, write_json
from tests.support.commands import SMALL, clean, only

HOLD = """
import sys
from pathlib import Path
from harness.store import locked
with locked(Path(sys.argv[1])):
    print(1, flush=True)
    input()
"""


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_digest(path) for path in folder.rglob("*") if path.is_file()}


def without(before: dict[str, str], *starts: str) -> dict[str, str]:
    return {name: value for name, value in before.items() if not any(start in name for start in starts)}


def test_checkpoints_of_finished_fits_go_and_nothing_else(results, capsys):
    before = files(results)
    assert main(["clean", f"results={results}", "yes=true"]) == 0
    assert files(results) == without(before, "/checkpoints/")
    assert "freed" in capsys.readouterr().out
    assert main(["verify", f"results={results}"]) == 0
    assert main(["run", "model=smolvlm", "lora=targeted", f"results={results}", *SMALL]) == 0
    assert "done before" in capsys.readouterr().out
    assert main(["clean", f"results={results}"]) == 0
    assert "nothing to delete" in capsys.readouterr().out


def test_checkpoints_of_an_unfinished_fit_stay(results):
    fit = only(results, "fits/smolvlm-*")
    (fit / "manifest.json").unlink()
    before = files(fit)
    assert main(["clean", f"results={results}", "yes=true"]) == 0
    assert files(fit) == before


def test_without_a_terminal_nothing_goes_and_the_way_on_is_told(results, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    before = files(results)
    assert main(["clean", f"results={results}"]) == 2
    said = capsys.readouterr()
    assert "yes=true" in said.err
    assert "10 to delete, which frees" in said.out
    assert files(results) == before


@pytest.mark.parametrize(("answer", "left"), [("y", False), ("yes", False), ("", True), ("n", True), ("what", True)])
def test_a_terminal_is_asked(results, answer, left, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda: answer)
    assert main(["clean", f"results={results}"]) == 0
    assert any(results.glob("fits/*/checkpoints")) is left
    assert "delete? [y/N]" in capsys.readouterr().out


def test_orphans_failed_logs_and_cache_go_when_asked_for(results):
    shutil.rmtree(only(results, "runs/smolvlm-targeted-*"))
    failed = only(results, "runs/llava_15-none-*")
    write_json(failed / "manifest.json", read_manifest(failed) | {"status": "failed"})
    (results / "logs").mkdir(exist_ok=True)
    (results / "logs" / "failed.log").write_text("Traceback")
    orphan = only(results, "fits/smolvlm-*")
    before = files(results)
    assert main(["clean", f"results={results}", "what=orphans,failed,logs,cache", "yes=true"]) == 0
    gone = (f"fits/{orphan.name}/", f"runs/{failed.name}/", "logs/", "cache/")
    assert files(results) == without(before, *gone)
    assert not orphan.exists()
    assert not failed.exists()


def test_leftovers_of_killed_processes_go_with_the_default(results):
    run = only(results, "runs/smolvlm-none-*")
    old, new = run / ".manifest.json.123.tmp", run / ".manifest.json.456.tmp"
    half = results / "fits" / ".deleted-smolvlm-targeted-plain-s0-0123456789"
    aside = results / "cache" / "cache.damaged-1"
    for path in (old, new, half / "adapter" / "weights", aside):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{")
    os.utime(old, (time.time() - 7200,) * 2)
    assert main(["clean", f"results={results}", "yes=true"]) == 0
    assert [path.exists() for path in (old, new, half, aside)] == [False, True, False, False]
    assert (results / "cache" / "cache.sqlite").exists()


def test_a_folder_held_by_a_living_process_is_kept(results, capsys):
    held, free = only(results, "fits/smolvlm-*"), only(results, "fits/qwen2_vl-*")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(held)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean(), text=True
    ) as process:
        assert process.stdout.readline() == "1\n"
        assert main(["clean", f"results={results}", "what=checkpoints,cache", "yes=true"]) == 0
        process.communicate("\n")
    assert (held / "checkpoints").is_dir()
    assert not (free / "checkpoints").exists()
    assert (results / "cache").is_dir()
    assert "kept, in use by a command that works on" in capsys.readouterr().out
    assert main(["clean", f"results={results}", "yes=true"]) == 0
    assert not (held / "checkpoints").exists()


def test_a_fit_that_comes_into_use_while_the_question_stands_is_kept(results, monkeypatch):
    run, fit = only(results, "runs/smolvlm-targeted-*"), only(results, "fits/smolvlm-*")
    aside = run.rename(results / "aside")

    def answer():
        aside.rename(run)
        return "y"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", answer)
    assert main(["clean", f"results={results}", "what=orphans"]) == 0
    assert (fit / "adapter").is_dir()


def test_a_lock_taken_at_the_last_moment_is_respected(results, monkeypatch, capsys):
    from harness.commands import clean as command

    fit = only(results, "fits/smolvlm-*")
    monkeypatch.setattr(command, "busy", lambda folder: False)
    with locked(fit):
        assert main(["clean", f"results={results}", "yes=true"]) == 0
    assert (fit / "checkpoints").is_dir()
    assert "kept, in use by now" in capsys.readouterr().out


def test_links_out_of_the_folder_are_not_followed(results, tmp_path, capsys):
    """A link in the place of checkpoints, of a fit, of the cache, and one inside a folder that is deleted."""
    outside = tmp_path / "outside"
    linked, inner = only(results, "fits/smolvlm-*"), only(results, "fits/qwen2_vl-*")
    shutil.move(linked, outside / "fit")
    linked.symlink_to(outside / "fit")
    other = only(results, "fits/llava_15-*")
    shutil.move(other / "checkpoints", outside / "checkpoints")
    (other / "checkpoints").symlink_to(outside / "checkpoints")
    shutil.move(results / "cache", outside / "cache")
    (results / "cache").symlink_to(outside / "cache")
    (outside / "data").mkdir()
    (outside / "data" / "precious").write_text("1")
    (inner / "checkpoints" / "link").symlink_to(outside / "data")
    before = files(outside)
    what = f"what={','.join(KINDS)}"
    assert main(["clean", f"results={results}", what, "yes=true"]) == 0
    assert files(outside) == before
    assert not (inner / "checkpoints").exists()
    assert capsys.readouterr().out.count("a link leads to it") == 3


def test_a_results_folder_behind_a_link_is_cleaned(results, tmp_path):
    (tmp_path / "link").symlink_to(results)
    assert main(["clean", f"results={tmp_path / 'link'}", "yes=true"]) == 0
    assert not any(results.glob("fits/*/checkpoints"))


@pytest.mark.parametrize("arguments", [["what=everything"], ["what="], ["results=nowhere"], ["yes=perhaps"]])
def test_a_wrong_request_deletes_nothing(results, arguments, capsys):
    before = files(results)
    given = arguments if arguments[0].startswith("results") else [f"results={results}", *arguments]
    assert main(["clean", *given]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert files(results) == before


def test_a_folder_of_something_else_is_refused(tmp_path):
    """`cache` and `logs` are names that other folders have too."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "precious").write_text("1")
    assert main(["clean", f"results={tmp_path}", "what=cache", "yes=true"]) == 2
    assert (tmp_path / "cache" / "precious").exists()
