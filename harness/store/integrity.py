"""Integrity of runs and fits: every recorded hash against the bytes on the disk."""

from __future__ import annotations

from collections.abc import Mapping

from harness.machine.terminal import errors
from harness.store import SHORT, Damaged, digest, file_digest
from harness.store.journal import texts_digest
from harness.store.runs import Run

REPAIR = {
    "captions.jsonl": "put the file back, or delete the folder and run again",
    "scores": "`capbench score` makes it again",
    "adapter": "put the file back, or delete the folder and run again",
}

Problem = tuple[str, str]
"""(file below the folder, what is wrong with it and what helps)."""


def trusted(run: Run) -> Run:
    """A run for the tables: one whose captions or scores are not the recorded ones is a failed one, with the reason.

    Costs a sha256 over captions and score files: about 1 ms for a run of 1,000 samples, a seventh of reading them.
    """
    if run.status == "failed":
        return run
    try:
        problems = changed(run)
    except Damaged as error:  # the record of the scores itself
        problems = [unreadable(run, error)]
    if not problems:
        return run
    file, what = problems[0]
    more = f" (and {len(problems) - 1} more; see `capbench verify`)" if len(problems) > 1 else ""
    reason = f"{file}: {what}{more}"
    errors.print(f"capbench: {run.folder}: {reason}")
    return Run(run.folder, {**run.manifest, "status": "failed", "row": {**run.row, "error": reason}})


def changed(record: Run) -> list[Problem]:
    """Files of a run or fit whose bytes are not the recorded ones. Raises Damaged for an unreadable score record."""
    found = []
    for name, expected in recorded(record).items():
        path = record.folder / name
        if not path.is_file():
            found.append((name, f"is gone; {_repair(name)}"))
        elif file_digest(path) != expected:
            found.append((name, f"was edited or damaged, its sha256 is not the recorded one; {_repair(name)}"))
    return found


def unreadable(record: Run, error: Damaged) -> Problem:
    """What a Damaged says of a file below the folder."""
    file, _, what = str(error).removeprefix(f"{record.folder}/").partition(": ")
    return file, what


def recorded(record: Run) -> dict[str, str]:
    """File below the folder -> sha256, of the manifest and, for a run, of its score records. Raises Damaged."""
    files = dict(record.manifest.get("files") or {})
    for name, protocol in record.protocols.items():
        columns = protocol.get("columns") if isinstance(protocol, Mapping) else None
        if not isinstance(columns, Mapping):
            path = record.folder / "scores" / f"{name}.json"
            raise Damaged(f"{path}: expected a record of scores, got other JSON; delete it and repeat `capbench score`")
        for column in columns.values():
            if "file" in column:
                files[f"scores/{column['file']}"] = column["sha256"]
    return files


def wrong_identity(record: Run) -> list[Problem]:
    """Whether the identity in the manifest is the one that the folder, and the row of a run, are named by."""
    identity = record.manifest.get("identity")
    if not isinstance(identity, Mapping):
        return [("manifest.json", str(record.row.get("error") or "holds no identity"))]
    if "schema" not in identity:  # failed before it had an identity: named by its request
        return []
    own, problems = digest(identity)[:SHORT], []
    if own != record.folder.name.rpartition("-")[2]:
        problems.append(("", f"the folder was renamed or its manifest edited: the identity hashes to {own}"))
    if record.row.get("run_id", own) != own:
        problems.append(("manifest.json", f"its row has run_id {record.row['run_id']}, the identity hashes to {own}"))
    if "fit" in identity and record.row.get("fit_id") != str(identity["fit"])[:SHORT]:
        problems.append(("manifest.json", f"its row has fit_id {record.row.get('fit_id')}, not that of its identity"))
    return problems


def wrong_captions(run: Run) -> list[Problem]:
    """Row checksums, the counts of the manifest, and whether each protocol scored these captions."""
    try:
        rows = run.rows
    except Damaged as error:
        return [("captions.jsonl", unreadable(run, error)[1])]
    problems = []
    ok = sum(row.status == "ok" for row in rows)
    if (len(rows), ok) != (run.row["n_requested"], run.row["n_ok"]) and run.status != "failed":
        expected = f"{run.row['n_requested']} samples with {run.row['n_ok']} captions"
        problems.append(("captions.jsonl", f"expected {expected}, got {len(rows)} with {ok}"))
    texts = texts_digest(rows)
    for name, record in run.protocols.items():
        if record.get("texts", texts) != texts:
            problems.append((f"scores/{name}.json", "scores other captions than these; repeat `capbench score`"))
    return problems


def unrecorded(fit: Run) -> list[Problem]:
    """Files beside the recorded ones in the adapter folder, which a library might load."""
    folder, known = fit.folder / "adapter", recorded(fit)
    names = sorted(f"adapter/{p.name}" for p in folder.iterdir()) if folder.is_dir() else []
    return [(name, "was not written by the fit; move it away") for name in names if name not in known]


def _repair(name: str) -> str:
    return REPAIR.get(name.partition("/")[0], "put the file back")
