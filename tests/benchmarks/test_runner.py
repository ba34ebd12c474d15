"""The base of the benchmarks: options from fields, one table on the terminal and in the file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import pandas as pd
import pytest

from harness.benchmarks import fit
from harness.benchmarks._runner import Benchmark, Row


@dataclass(frozen=True, kw_only=True)
class Made(Benchmark):
    """Rows as they are asked for."""

    key: ClassVar = ("kind",)
    file: Annotated[Path, "which must be given"]
    kind: Annotated[str, "one of them", ("a", "b")] = "a"
    sizes: Annotated[Sequence[int], "some numbers"] = (1, 2)
    layers: Annotated[int | None, "all without it"] = None
    tiny: Annotated[bool, "a flag"] = False

    def rows(self) -> Iterator[Row]:
        for size in self.sizes:
            if size == 0:
                raise ZeroDivisionError
            yield {"kind": self.kind, "size": size, "third": size / 3, "tiny": self.tiny, "layers": self.layers}


def test_each_field_is_an_option(capsys):
    table = Made.main(["--file", "x"])
    assert table["size"].tolist() == [1, 2]
    table = Made.main(["--file", "x", "--sizes", "3", "4", "5", "--kind", "b", "--tiny", "--layers", "7"])
    assert table.loc[2].to_dict() == {"kind": "b", "size": 5, "third": 5 / 3, "tiny": True, "layers": 7}
    assert "0.333333" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["--file", "x", "--kind", "c"], ["--file", "x", "--sizes", "many"]])
def test_a_wrong_request_is_refused(words, capsys):
    with pytest.raises(SystemExit) as error:
        Made.main(words)
    assert error.value.code == 2
    assert "--" in capsys.readouterr().err


def test_rows_of_something_else_stay_and_a_failure_costs_no_row(tmp_path):
    out = ["--file", "x", "--out", str(tmp_path / "folder" / "made.csv")]
    Made.main(out)
    Made.main([*out, "--kind", "b", "--sizes", "3"])
    with pytest.raises(ZeroDivisionError):
        Made.main([*out, "--kind", "a", "--sizes", "9", "0"])
    table = pd.read_csv(tmp_path / "folder" / "made.csv")
    assert list(zip(table["kind"], table["size"], strict=True)) == [("b", 3), ("a", 9)]
    assert "9,3,False," in (tmp_path / "folder" / "made.csv").read_text()


def test_the_modules_text_is_the_help(capsys):
    with pytest.raises(SystemExit):
        fit.main(["--help"])
    told = capsys.readouterr().out
    assert "pip install --target FOLDER --no-deps trl" in told
    assert "longest edge of a picture" in told
