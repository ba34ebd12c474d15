"""A small dataset with one of everything that goes wrong in real ones, and the list of what was planted."""

from __future__ import annotations

import csv
import io
import json
import struct
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from harness.contracts import Rejected, Split
from harness.datasets._table_rows import read_rows
from harness.datasets.table import Table
from tests.support.commands import ROOT

SIDE = 96
SUFFIXES = (".png", ".jpg", ".bmp")
HEADER = ("id", " Image ", "CAPTION", "split", "modality", "concepts ")
MODALITIES = ("CT", "X-ray", "MRI", "Ultrasound")


class Listed(Table):
    """A table that knows of the pictures beside its rows, as datasets in folders do."""

    def load(self, split: str) -> Split:
        found = super().load(split)
        root = Path(str(self.path)).parent
        rows = read_rows(Path(str(self.path))).rows
        named = {row.cells.get("Image") or row.cells.get("image") for row in rows}
        beside = sorted(path.name for path in root.iterdir() if path.suffix in SUFFIXES and path.name not in named)
        entries = [Rejected(name, "a picture without a row in the table") for name in beside]
        return replace(found, rejected=(*found.rejected, *entries))


@dataclass
class Planted:
    """The folder, the file and what is wrong with it: (split, id, kind)."""

    folder: Path
    path: Path
    problems: set[tuple[str, str, str]] = field(default_factory=set)
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def row(self, identity, file, caption, split, *kinds, modality="CT", concepts="C0040405") -> None:
        """Add a row; `kinds` are the problems that it must be found to have."""
        self.rows.append((identity, file, caption, split, modality, concepts))
        self.problems |= {(split, identity, kind) for kind in kinds}

    def write(self) -> None:
        """The table: with a byte order mark and blanks in the header as CSV, plain as JSON Lines."""
        if self.path.suffix == ".csv":
            text = io.StringIO(newline="")
            csv.writer(text).writerows([HEADER, *self.rows])
            self.path.write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())
        else:
            names = [name.strip() for name in HEADER]
            self.path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in self.rows))


def body(seed: int) -> Image.Image:
    """Soft blobs on black, another picture for each seed, RGB."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    pixels = np.zeros((SIDE, SIDE))
    for _ in range(12):
        at_x, at_y, width = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0.04, 0.15)
        pixels += rng.uniform(0.3, 1) * np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / (2 * width**2))
    grey = (255 * pixels / pixels.max()).astype(np.uint8)
    return Image.fromarray(np.stack([grey] * 3, axis=2))


def bomb() -> bytes:
    """A PNG that claims 30,000 x 30,000 pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return start + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def make(folder: Path, suffix: str = ".csv") -> Planted:
    """Write the fixture below `folder`."""
    root = folder / "dirty"
    root.mkdir(parents=True)
    planted = Planted(root, root / f"table{suffix}")
    _sound(planted)
    _bad_rows(planted)
    _bad_pictures(planted)
    _twins(planted)
    _bad_captions(planted)
    if suffix == ".jsonl":  # CSV is UTF-8 and cannot hold one
        body(300).save(root / "surrogate.png")
        planted.row("surrogate", "surrogate.png", "Half \ud83d a pair.", "train", "unwritable_caption")
    planted.write()
    return planted


def _sound(planted: Planted) -> None:
    """Rows that look odd and have nothing wrong; none of them may be named."""
    captions = {
        "plain": "Axial CT of the chest.",
        "leading_blank": "  Coronal view with leading and trailing blanks. ",
        "quoted_comma": 'Arrow, small, at the "apex", left.',
        "typography": "The patient\u2019s \u201clesion\u201d: 3\u00a0\u00d7\u00a04 mm \u2013 at\u201137 \u00b0C.",
        "abbreviated": "Vein. CT: computed tomography, e.g. at 3.5 T.",
        "greek": "\u03b1-fetoprotein, \u03bcm, na\u00efve T\u2082 signal.",
    }
    for place, (name, caption) in enumerate(captions.items()):
        for number, split in enumerate(("train", "valid", "test")):
            file = f"{name}_{split}.{'jpg' if place % 2 else 'png'}"
            picture = body(10 * place + number)
            (picture.convert("L") if place % 3 else picture).save(planted.folder / file)
            concepts = ("nan", "C1;C2", "", '["nan"]')[place % 4]
            planted.row(
                f"{name}_{split}", file, f"{caption} {split}", split, modality=MODALITIES[place % 4], concepts=concepts
            )


def _bad_rows(planted: Planted) -> None:
    planted.row("no_picture", "never_written.png", "A row without picture.", "train", "missing_image")
    planted.row("no_cell", "", "A row without a name of a picture.", "train", "missing_image")
    (planted.folder.parent / "outside.png").write_bytes(b"")
    planted.row("outside", "../outside.png", "A picture outside of the folder.", "train", "image_outside_root")
    body(100).save(planted.folder / "never_named.png")
    planted.problems.add(("", "never_named.png", "image_without_row"))
    body(101).save(planted.folder / "again.png")
    planted.row("plain_test", "again.png", "An id for the second time.", "test", "duplicate_id")
    planted.rows.append(("holdout", "again.png", "A split of another name.", "holdout", "CT", ""))
    planted.problems.add(("", "holdout", "unusable_row"))
    body(102).save(planted.folder / "unknown.png")
    planted.row("unknown", "unknown.png", "Nobody knows what it is.", "valid", modality="")
    planted.problems.add(("valid", "", "unknown_modality"))


def _bad_pictures(planted: Planted) -> None:
    def add(name: str, data: bytes | None, *kinds: str) -> None:
        if data is not None:
            (planted.folder / name).write_bytes(data)
        planted.row(name, name, f"A picture called {name}.", "train", *kinds)

    cut = io.BytesIO()
    body(110).save(cut, "JPEG")
    add("truncated.jpg", cut.getvalue()[: len(cut.getvalue()) // 2], "undecodable_image")
    add("text.png", b"<html>404 Not Found</html>", "undecodable_image")
    add("nothing.png", b"", "undecodable_image")
    add("bomb.png", bomb(), "decompression_bomb")
    body(111).resize((12, 40)).save(planted.folder / "tiny.png")
    add("tiny.png", None, "tiny_image")
    for name, value in (("black.png", 0), ("grey.png", 90)):
        Image.new("RGB", (64, 64), (value,) * 3).save(planted.folder / name)
        add(name, None, "blank_image")
    deep = np.asarray(body(112))[..., 0].astype(np.uint16) * 256
    Image.fromarray(deep).save(planted.folder / "deep.png")
    body(113).convert("RGBA").save(planted.folder / "alpha.png")
    body(114).convert("CMYK").save(planted.folder / "print.jpg", quality=95)
    body(115).convert("P").save(planted.folder / "palette.png")
    for name in ("deep.png", "alpha.png", "print.jpg", "palette.png"):
        add(name, None, "unusual_mode")


def _twins(planted: Planted) -> None:
    """The same picture twice: bit by bit, in another format, saved again; within a split and across."""
    for name, split, kind in (
        ("same", "valid", "duplicate_image"),
        ("leak", "train", "same_image_in_other_split"),
    ):
        first = "valid" if split == "valid" else "test"
        picture = body({"same": 200, "leak": 201}[name])
        picture.save(planted.folder / f"{name}_1.png")
        picture.save(planted.folder / f"{name}_2.bmp")
        planted.row(f"{name}_1", f"{name}_1.png", f"The first {name}.", first)
        planted.row(f"{name}_2", f"{name}_2.bmp", f"The second {name}.", split, kind)
    for name, split, kind in (
        ("alike", "test", "similar_image"),
        ("relative", "train", "similar_image_in_other_split"),
    ):
        picture = body({"alike": 202, "relative": 203}[name])
        picture.save(planted.folder / f"{name}_1.png")
        picture.resize((144, 144), Image.Resampling.BICUBIC).save(planted.folder / f"{name}_2.jpg", quality=60)
        planted.row(f"{name}_1", f"{name}_1.png", f"The first {name}.", "test")
        planted.row(f"{name}_2", f"{name}_2.jpg", f"The second {name}.", split, kind)


def _bad_captions(planted: Planted) -> None:
    captions = {
        "empty_caption": " \t ",
        "mojibake": "The patient\u00e2\u20ac\u2122s left lung.",
        "replacement_character": "A 5 \ufffdm lesion.",
        "control_character": "Bell\x07 rings.",
        "line_break": "Two\u2028lines.",
        "glued_text": "Left jugular vein.CT: computed tomography.",
    }
    for place, (kind, caption) in enumerate(captions.items()):
        body(220 + place).save(planted.folder / f"{kind}.png")
        planted.row(kind, f"{kind}.png", caption, "train", kind)
    for number in (1, 2):
        body(230 + number).save(planted.folder / f"repeated_{number}.png")
        words = "Initial panoramic radiograph." if number == 1 else "Initial  Panoramic radiograph. "
        planted.row(
            f"repeated_{number}",
            f"repeated_{number}.png",
            words,
            "valid",
            *(["duplicate_caption"] if number == 2 else []),
        )


def source(planted, folder, target="tests.support.dirty.Listed") -> list[str]:
    """The fixture as a dataset of a user's own configuration folder."""
    conf = Path(f"{folder}-conf")
    (conf / "dataset").mkdir(parents=True, exist_ok=True)
    usual = (ROOT / "conf" / "dataset" / "table.yaml").read_text()
    (conf / "dataset" / "dirty.yaml").write_text(usual.replace("harness.datasets.table.Table", target))
    return ["dirty", "--config-dir", str(conf), f"dataset.path={planted.path}"]
