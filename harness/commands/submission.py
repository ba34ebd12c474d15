"""capbench submission: check a file for ImageCLEFmedical Caption, or write one from a run.

usage: capbench submission check captions=FILE [references=FILE | images=FOLDER] [format=NAME]
       capbench submission write run=FOLDER|ID [results=FOLDER] [out=FILE] [references=FILE] [empty=true] [format=NAME]

check: everything for which ImageCLEFmedical Caption's own program would reject the file or cut a caption, by line.
write: a file that passes, from the captions of a run. Nothing is scored.
Exit codes: 0 the file passes; 1 it would be rejected or cut; 2 the request was wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import config
from harness.choices import some
from harness.commands._options import as_text, parse
from harness.contracts import RequestError
from harness.machine.terminal import console, errors, listed
from harness.scoring.caption_files import read_captions
from harness.scoring.imageclef import Checked, Format, check, compose, one_line
from harness.store import JournalRow, file_to_write, write_text
from harness.store.runs import Run, find_run

SHOWN = 20  # violations


@dataclass(frozen=True)
class Settings:
    """The values of conf/submission.yaml."""

    captions: str | None
    references: str | None
    images: str | None
    format: Format
    run: str | None
    results: str
    out: str
    empty: bool
    pictures: dict[str, str]


def main(argv: Sequence[str]) -> int:
    """Check or write; 1 when a file would be rejected or cut."""
    words = parse("submission", argv).overrides
    actions = {"check": _check, "write": _write}
    if not words or words[0] not in actions:
        raise RequestError(f"submission {words[0] if words else ''}: expected check or write")
    settings: Settings = config.options("submission", [as_text(word, ["run"]) for word in words[1:]], Settings)
    return actions[words[0]](settings)


# ---------------------------------------------------------------- check


def _check(settings: Settings) -> int:
    path = Path(_given(settings.captions, "captions=FILE", "check"))
    if not path.is_file():
        raise RequestError(f"captions={path}: expected a file, found none")
    if settings.references and settings.images:
        raise RequestError("references=FILE or images=FOLDER: both name the ids; give one of them")
    checked = check(path.read_bytes(), _ids(settings), settings.format, ordered=bool(settings.references))
    _report(path, checked, settings.format)
    if not settings.references:
        compared = "the order of the ids was" if settings.images else "the ids were"
        console.print(f"{compared} not compared: give references=FILE")
    return 1 if checked.violations else 0


def _ids(settings: Settings) -> list[str] | None:
    if settings.references:
        return list(read_captions(Path(settings.references), "references"))
    if settings.images:
        return list(config.build_node({**settings.pictures, "folder": settings.images}, "pictures").load())
    return None


def _report(path: Path, checked: Checked, form: Format) -> None:
    found = checked.violations
    empty = f", {checked.empty} of them empty, which score 0" if checked.empty else ""
    verdict = f"{len(found)} problems under the rules of {form}" if found else f"passes the rules of {form}"
    console.print(f"{path}: {checked.rows} captions{empty}; {verdict}")
    listed([f"  line {violation.line}: {violation.text}" for violation in found], SHOWN, "  and {} more")


# ---------------------------------------------------------------- write


def _write(settings: Settings) -> int:
    run = find_run(Path(settings.results), _given(settings.run, "run=FOLDER or run=ID", "write"))
    if run.status == "failed":
        raise RequestError(f"{run.folder.name}: it failed and has no captions: {run.row.get('error')}")
    rows = _rows(run, settings)
    failed = [row.id for row in rows if row.status != "ok"]
    if failed and not settings.empty:
        raise RequestError(
            f"run={settings.run}: {len(failed)} samples have no caption: {some(failed)}; "
            "repeat `capbench run`, or write empty captions, which score 0, with empty=true"
        )
    captions = [(str(row.id), row.caption or "") for row in rows]
    text = compose(captions, settings.format)
    checked = check(text.encode(), [name for name, _ in captions], settings.format)
    if checked.violations:
        first = checked.violations[0]
        raise RequestError(
            f"run={settings.run}: no file of these ids and captions passes the rules of {settings.format}; "
            f"line {first.line}: {first.text}"
        )
    write_text(file_to_write(settings.out), text)
    _report(Path(settings.out), checked, settings.format)
    changed = sum(one_line(caption, settings.format) != caption for _, caption in captions)
    if changed:
        console.print(f"{changed} captions had line breaks: blanks stand in their place")
    return 0


def _rows(run: Run, settings: Settings) -> list[JournalRow]:
    """The rows of the file: those of the run or, with references, one for each of their ids in their order."""
    rows = {str(row.id): row for row in run.rows}
    ids = _ids(settings)
    if ids is None:
        rejected = [str(entry["id"]) for entry in run.manifest.get("rejected") or ()]
        if rejected:
            errors.print(
                f"capbench: the dataset rejected {len(rejected)} samples, which get no row: {some(rejected)}; "
                "references=FILE tells which ids are asked for"
            )
        return list(rows.values())
    unknown = sorted(rows.keys() - set(ids))
    if unknown:
        raise RequestError(f"run={settings.run}: these ids are not among those of the references: {some(unknown)}")
    return [rows.get(name) or JournalRow.of_texts(name, "", None) for name in ids]


def _given(value: str | None, what: str, action: str) -> str:
    if value is None:
        raise RequestError(f"submission {action}: {what} is missing; see `capbench submission --help`")
    return value
