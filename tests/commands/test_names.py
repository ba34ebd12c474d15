"""Every command that is given a run knows it by the same names, and says the same of a name that it does not know."""

import shutil
from pathlib import Path

import pytest

from harness.cli import main
from tests.support.commands import ROOT

RUN, FIT = "smolvlm-targeted-plain-s0-53166ed630", "smolvlm-targeted-s0-1de3e0ca1a"
COMMANDS = {
    "compare": "compare NAME qwen2_vl-none results=RESULTS trials=10 permutations=10",
    "show": "show NAME results=RESULTS trials=10",
    "diff": "diff NAME qwen2_vl-none results=RESULTS trials=10",
    "reproduce": "reproduce NAME source=RESULTS results=RESULTS",  # found, and refused: nothing has to run
    "verify": "verify NAME results=RESULTS",
    "submission": "submission write run=NAME results=RESULTS out=RESULTS/out/captions.csv",
}
FOUND = dict.fromkeys(COMMANDS, 0) | {"reproduce": 2}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> Path:
    return Path(shutil.copytree(ROOT / "tests" / "data" / "results_0.1", tmp_path_factory.mktemp("names") / "results"))


def words(command: str, name: str, results: Path) -> list[str]:
    return [word.replace("NAME", name).replace("RESULTS", str(results)) for word in COMMANDS[command].split()]


@pytest.mark.parametrize(
    "name", ["53166ed630", "53166e", RUN, RUN[:22], f"runs/{RUN}", "runs/smolvlm-targeted-p", "PATH"]
)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_is_found_by_id_folder_beginning_and_path(command, name, earlier, capsys):
    name = str(earlier / "runs" / RUN) if name == "PATH" else name
    assert main(words(command, name, earlier)) == FOUND[command]
    if command == "reproduce":
        assert "holds the run itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("smolvlm", "smolvlm: stands for 3: runs/smolvlm-none-plain-003f654308, runs/smolvlm-targeted-modality-"),
        ("53166ed631", "53166ed631: expected the id, the folder or a prefix of a run or fit; there is runs/control-"),
        (RUN.replace("ted", "tted"), "expected the id, the folder or a prefix of a run or fit; the nearest are runs/"),
        ("runs", "runs: stands for 6: runs/control-constant-988fabaf79, runs/qwen2_vl-none-plain-11bd2aee92, "),
        ("no/such/folder", "no/such/folder: expected the id, the folder or a prefix of a run or fit; there is runs/"),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_an_ambiguous_or_unknown_name_is_the_same_error(command, name, expected, earlier, capsys):
    assert main(words(command, name, earlier)) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("command", ["compare", "submission"])
def test_a_fit_is_no_run(command, earlier, capsys):
    assert main(words(command, str(earlier / "fits" / FIT), earlier)) == 2
    assert "expected a run, got a fit" in capsys.readouterr().err
