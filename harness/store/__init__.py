"""The results folder: identities, files written in one step, journals, and what lies there."""

from harness.store.files import (
    Damaged,
    busy,
    csv_text,
    file_to_write,
    find_folders,
    if_free,
    locked,
    make_folder,
    read_json,
    read_manifest,
    replacing,
    write_json,
    write_text,
)
from harness.store.identity import SCHEMA, SHORT, difference, digest, file_digest, same_identity, through_json
from harness.store.journal import Journal, JournalRow
