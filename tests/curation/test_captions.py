"""Damage of captions, found in their text alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import config
from harness.curation.captions import caption_damage
from harness.curation.problems import SEVERITY, kind_of
from tests.support import dirty


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return dirty.make(tmp_path_factory.mktemp("planted"))


# ---------------------------------------------------------------- captions


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("caf\u00c3\u00a9", ["mojibake"]),
        ("3 \u00c2\u00b5m", ["mojibake"]),
        ("it\u00e2\x80\x99s", ["mojibake", "control_character"]),
        ("\u00ef\u00bb\u00bfText", ["mojibake"]),
        (
            "5 \u00b5m, 3 \u00d7 4, \u00b12\u00b0, na\u00efve \u00abl'\u00e9t\u00e9\u00a0\u00bb, \u00c4\u00d6\u00dc",
            [],
        ),
        ("\u0410\u0440\u0442\u0435\u0440\u0438\u044f \u52d5\u8108", []),
        ("a\ufffdb", ["replacement_character"]),
        ("a\x00b", ["control_character"]),
        ("tab\tis fine", []),
        ("a\r\nb", ["line_break"]),
        ("a\x85b", ["line_break"]),
        ("half \ud800", ["unwritable_caption"]),
        ("", ["empty_caption"]),
        ("vein (left).MRI: magnetic", ["glued_text"]),
        ("See Fig.2: left", []),
    ],
)
def test_damage_of_captions(text, kinds):
    assert [kind for kind, _ in caption_damage(text)] == kinds


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_text_breaks_the_check(text):
    for kind, detail in caption_damage(text):
        assert kind in SEVERITY
        assert detail.encode() is not None


@given(st.text(st.characters(min_codepoint=0x2010, max_codepoint=0x2044), min_size=1, max_size=5))
def test_typography_read_as_windows_latin_is_noticed(text):
    wrong = text.encode().decode("cp1252", errors="replace")
    if "\ufffd" not in wrong:
        assert "mojibake" in [kind for kind, _ in caption_damage(f"word {wrong} word")]


def test_reasons_of_ledgers_have_kinds(planted):
    assert kind_of("something new") == "unusable_row"
    table = config.build_node(config.choice("dataset", "table") | {"path": str(planted.path)}, "dataset")
    for entry in table.load("train").rejected:
        assert (kind_of(entry.reason) == "unusable_row") == (entry.id == "holdout"), entry
