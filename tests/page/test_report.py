"""`capbench report`: one file that asks nothing of a network, says what the tables say, and runs no text."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from harness.cli import main
from harness.contracts import ImageError, RequestError, Sample, Split
from harness.page.gallery import SIDE, choose, pictures
from harness.page.grid import duration, number, p_value, short, size
from harness.page.render import embedded
from harness.store import read_json, write_json
from harness.store.runs import find_runs
from tests.support.report_data import CLOSING, HOSTILE, SCRIPT, hostile, kept_tables, made_up


class Page(HTMLParser):
    """Elements with their attributes, the visible text, and what stands in script elements."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts, self.inside = "", [], None
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts.append(data)
        elif self.inside is None:
            self.text += data

    @property
    def data(self):
        return json.loads(self.scripts[0])

    def ids(self):
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


def report(results: Path, *options: str) -> Page:
    assert main(["report", f"results={results}", "trials=100", "permutations=200", *options]) == 0
    return Page((results / "report.html").read_text())


@pytest.fixture(scope="module")
def embedded_results(sweep, tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("report") / "results"
    shutil.copytree(sweep, results)
    return results


@pytest.fixture(scope="module")
def page(embedded_results) -> Page:
    return report(embedded_results)


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory) -> Page:
    return report(hostile(tmp_path_factory.mktemp("hostile")))


# ---------------------------------------------------------------- the file


def test_nothing_in_it_asks_for_a_network(page):
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset", "xlink:href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), (tag, name, value)
        assert tag not in ("link", "iframe", "object", "embed", "base")


def test_a_strict_policy_stands_first_and_no_element_breaks_it(page):
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not [tag for tag, attributes in page.elements if "style" in attributes]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_names_in_it_are_unique_and_every_reference_has_its_name(page):
    ids = page.ids()
    assert len(ids) == len(set(ids))
    named = [name for _, a in page.elements for name in (a.get("aria-labelledby") or "").split()]
    linked = [a["href"][1:] for _, a in page.elements if (a.get("href") or "").startswith("#")]
    assert named
    assert set(named) | set(linked) <= set(ids)


def test_the_same_results_give_the_same_bytes(embedded_results, page):
    files = [embedded_results / "report.html", *sorted((embedded_results / "plots").iterdir())]
    before = [path.read_bytes() for path in files]
    report(embedded_results)
    assert [path.read_bytes() for path in files] == before


def test_plots_are_files_too(embedded_results, page):
    names = {path.name for path in (embedded_results / "plots").iterdir()}
    for name in ("efficiency_trained", "efficiency_memory", "efficiency_speed", "modality", "agreement_sample"):
        assert {f"{name}.png", f"{name}.svg"} <= names
    with Image.open(embedded_results / "plots" / "modality.png") as image:
        assert min(image.size) > 300


# ---------------------------------------------------------------- what it says


def test_it_says_what_the_leaderboard_says(embedded_results, page):
    board = pd.read_csv(embedded_results / "leaderboard.csv")
    assert "embedded demonstration: says that the harness works" in page.text.lower()
    for row in board.itertuples():
        assert row.model in page.text
        assert f"{row.overall:.3f}" in page.text
        assert f"[{row.overall_ci_low:.3f}, {row.overall_ci_high:.3f}]" in page.text
    names = [a["data-model"] for tag, a in page.elements if tag == "tr" and "data-model" in a]
    assert names == list(board["model"])


def test_pairs_are_those_of_the_table(embedded_results, page):
    table = pd.read_csv(embedded_results / "significance.csv")
    pairs = page.data["significance"]
    assert set(pairs["pairs"]) == set(table["metric"])
    assert len(pairs["pairs"]["overall"]) == (table["metric"] == "overall").sum()
    first = table[table["metric"] == "overall"].iloc[0]
    assert pairs["pairs"]["overall"][0][2] == pytest.approx(first["difference"], abs=1e-4)


def test_samples_show_captions_and_scores_of_the_runs(embedded_results, page):
    gallery = page.data["gallery"]
    assert len(gallery["samples"]) == 8
    run = next((embedded_results / "runs").glob("cnn_transformer-none*"))
    table = pd.read_csv(run / "samples.csv").set_index("id")
    row = next(n for n, r in enumerate(gallery["rows"]) if r["label"].startswith("cnn_transformer · none"))
    rouge = gallery["columns"].index("rouge")
    for sample in gallery["samples"]:
        assert sample["captions"][row] == table.loc[sample["id"], "caption"]
        assert sample["scores"][row][rouge] == pytest.approx(table.loc[sample["id"], "rouge"], abs=1e-4)
        assert sample["reference"] == table.loc[sample["id"], "reference"]
        assert sample["picture"].startswith("data:image/webp;base64,")


def test_labels_and_controls_are_shown_where_there_are_any(embedded_results, tmp_path, page):
    assert "against" not in page.ids()
    results = shutil.copytree(embedded_results, tmp_path / "results")
    with kept_tables(results):
        more = report(results, "samples=0")
    assert {"ablation", "ablation-label", "ablation-modality", "controls"} <= set(more.ids())
    assert "+0.030" in more.text
    assert "+6.0" in more.text
    assert more.data["gallery"] is None
    assert "Better than every control: constant, nearest" in more.text


def test_controls_are_apart_and_never_ranked(tmp_path):
    from harness.page.standing import leaderboard
    from harness.page.study import Study, read_tables
    from harness.tables.rebuild import rebuild

    results = made_up(tmp_path)
    board = rebuild(results, 50, 50)[0]
    first = board.table.index[0]
    board.table["control"] = ["constant", "", "", ""]
    board.table["gain_constant"] = [float("nan"), 0.1, 0.2, -0.1]
    board.table.loc[first, ["class", "rank"]] = ["control", float("nan")]
    study = Study(board, read_tables(results, board.key))
    grid = leaderboard(study)
    assert [body.title.partition(":")[0] for body in grid.bodies] == ["", "Controls"]
    assert grid.bodies[1].rows[0].cells[0].text == "–"
    assert "over constant" in [column.title for column in grid.columns]
    assert study.ranked[0]["name"] == study.rows[1]["name"]


@pytest.mark.parametrize("runs", [1, 2])
def test_one_row_and_two_rows_have_a_page(tmp_path, runs):
    shown = report(made_up(tmp_path, runs=runs, samples=3))
    assert len(shown.data["gallery"]["samples"]) == 3
    assert ("There is no other row" in shown.text) == (runs == 1)


def test_where_nothing_is_complete_nothing_leads(tmp_path):
    for run in find_runs(made_up(tmp_path, runs=2, samples=6)):
        write_json(run.folder / "manifest.json", {**run.manifest, "status": "partial"})
    shown = report(tmp_path)
    assert "nothing is ranked" in shown.text
    assert shown.data == {"significance": None, "gallery": None}


def test_a_metric_that_could_not_run_is_blank_with_its_reason(tmp_path):
    for run in find_runs(made_up(tmp_path, runs=3, samples=12)):
        record = read_json(run.folder / "scores" / "embedded.json")
        record["columns"]["bleurt"] = {"missing": "no checkpoint; get it with <this>"}
        write_json(run.folder / "scores" / "embedded.json", record)
    shown = report(tmp_path)
    assert "bleurt is blank: no checkpoint; get it with <this>" in shown.text
    assert shown.data["gallery"]["by"] == "factuality"  # what ranks needs bleurt
    assert "bleurt" not in shown.data["gallery"]["columns"]


# ---------------------------------------------------------------- hostile texts


def test_hostile_texts_are_text(hostile_page):
    scripts = [attributes for tag, attributes in hostile_page.elements if tag == "script"]
    assert len(scripts) == 2
    assert not [tag for tag, attributes in hostile_page.elements if tag == "img" or attributes.get("onerror")]
    assert SCRIPT in hostile_page.text
    assert CLOSING.partition("\u2028")[0] in hostile_page.text
    found = {caption for sample in hostile_page.data["gallery"]["samples"] for caption in sample["captions"]}
    assert found <= set(HOSTILE) | {None}
    assert set(HOSTILE) <= found


@pytest.mark.parametrize("text", [*HOSTILE, "<!--", "]]>", "\u2029", "\x00", "\ud800"])
def test_no_text_ends_the_element_that_holds_the_data(text):
    shown = str(embedded({text: text}))
    assert not re.search("[<>&\u2028\u2029]", shown)
    assert json.loads(shown) == {text: text}


def test_without_the_data_texts_remain_and_the_reason_is_given(hostile_page):
    assert all(sample["picture"] is None for sample in hostile_page.data["gallery"]["samples"])
    assert "cannot be read on this machine" in hostile_page.text


# ---------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["out=page.pdf"], "ends in .html"),
        (["samples=-1"], "expected 0 or more"),
        (["dataset=other"], "no leaderboard fits"),
        (["colour=red"], "expected KEY=VALUE"),
    ],
)
def test_wrong_requests_are_one_clear_line(tmp_path, capsys, options, said):
    made_up(tmp_path / "results", runs=2, samples=6)
    assert main(["report", f"results={tmp_path / 'results'}", "trials=20", "permutations=20", *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_without_runs_it_says_how_to_begin(tmp_path, capsys):
    assert main(["report", f"results={tmp_path}"]) == 2
    assert "capbench run" in capsys.readouterr().err


# ---------------------------------------------------------------- the parts


def test_best_worst_and_disagreed_samples_are_chosen():
    rng = np.random.default_rng(0)
    values = rng.uniform(0.4, 0.6, size=(3, 200))
    values[:, 7], values[:, 11] = 0.99, 0.01
    values[:, 13] = [0.0, 0.5, 1.0]
    values[:, 17] = np.nan
    chosen = choose(values, 40)
    assert "best" in chosen.places[7]
    assert "worst" in chosen.places[11]
    assert "disagreed" in chosen.places[13]
    assert chosen.places.get(17, ("spread",)) == ("spread",)
    assert len(chosen.places) == 40
    kinds = [kind for kinds in chosen.places.values() for kind in kinds]
    assert min(kinds.count(kind) for kind in ("best", "worst", "disagreed", "spread")) >= 10
    assert list(chosen.places) == sorted(chosen.places)


@pytest.mark.parametrize("count", [1, 3, 4, 7, 10, 50])
def test_no_more_samples_than_there_are_or_were_asked_for(count):
    chosen = choose(np.random.default_rng(1).uniform(size=(2, 9)), count)
    assert len(chosen.places) <= max(count, 3)
    assert len(chosen.places) >= min(count, 9)


def test_one_row_disagrees_with_nobody():
    chosen = choose(np.arange(12.0)[None], 8)
    assert not [kinds for kinds in chosen.places.values() if "disagreed" in kinds]


class Source:
    def __init__(self, size=(900, 300), broken=False):
        self.size, self.broken = size, broken

    def load(self):
        if self.broken:
            raise ImageError("no pixels")
        return Image.new("RGB", self.size, (10, 200, 30))

    def digest(self):
        return "0"


def sample(name: str, caption: str, **source) -> Sample:
    return Sample(name, (Source(**source),), caption, "test")


def test_pictures_are_small_and_those_that_changed_are_left_out():
    import base64
    import io

    split = Split("test", (sample("a", "one"), sample("b", "two"), sample("c", "three", broken=True)))
    rows = [{"id": "a", "reference": "one"}, {"id": "b", "reference": "another"}, {"id": "c", "reference": "three"}]
    found, why = pictures(rows, lambda: split)
    assert list(found) == ["a"]
    image = Image.open(io.BytesIO(base64.b64decode(found["a"].partition(",")[2])))
    assert max(image.size) == SIDE
    assert image.size[0] == 3 * image.size[1] or abs(image.size[0] / image.size[1] - 3) < 0.05
    assert "b is not, or not the same" in why
    assert "and 1 more" in why


def test_data_that_are_elsewhere_are_no_failure():
    def load():
        raise RequestError("dataset.root=x: expected a folder, found none")

    found, why = pictures([{"id": "a", "reference": "one"}], load)
    assert found == {}
    assert "cannot be read on this machine (dataset.root=x: expected a folder, found none)" in why


def test_numbers_read_well():
    assert [size(v).text for v in (None, 999, 1500, 2.5e9, 80e9)] == ["–", "999 B", "1.5 kB", "2.5 GB", "80 GB"]
    assert [duration(v).text for v in (5, 90, 7200, None)] == ["5.0 s", "1.5 min", "2.0 h", "–"]
    assert [short(v).text for v in (0.01234, 12.34, 1234.5, float("nan"))] == ["0.0123", "12.3", "1,234", "–"]
    assert [p_value(v).text for v in (0.0001, 0.0456)] == ["< 0.001", "0.046"]
    assert number(0.5, sign=True).text == "+0.500"
