"""Tables of captions and the pictures beside them."""

import csv
from pathlib import Path

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
