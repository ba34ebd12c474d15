"""Tables of captions and the pictures beside them."""

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image

from harness.datasets.table import Table

SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}


def table(path, **changes):
    values = {
        "root": None,
        "image_column": "image",
        "caption_column": "caption",
        "id_column": None,
        "split_column": None,
        "modality_column": None,
        "concepts_column": None,
        "shares": SHARES,
        "view": {},
        "ids": None,
        "limit": None,
        "stratify": "modality",
        "seed": 0,
        "clean": "strip",
        "check": "decoded",
        "cache": None,
        "recheck": False,
    }
    return Table("table", path=path if path is None else str(path), **{**values, **changes})


def write_csv(path: Path, rows, header=("image", "caption", "split"), delimiter=",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)
    return path


# ---------------------------------------------------------------- pictures and ledgers

COLUMNS = ("image", "caption")


def picture(path: Path, value=0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)
    return path


def png(value) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def reasons(split):
    return {rejected.id: rejected.reason for rejected in split.rejected}


AWKWARD = 'He said: "no, two"\nlines; a\u2028separator, ünïcödé'
ROWS = [("a.png", f" {AWKWARD}\n", "train"), ("b.png", "B.", "val"), ("c.png", "C.", "TEST")]
