"""A folder in the form of ROCOv2, with the traps of the real one; pictures are few and linked, so that it may be large.

python tests/make_rocov2.py FOLDER [--rows 59958,9904,9927] [--form unpacked|zipped|parquet]
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import random
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SPLITS = ("train", "valid", "test")
GAPS = (3, 77, 176, 421)  # numbers that no id has
MODALITIES = (
    *(("C0040405", 35), ("C1306645", 27), ("C0024485", 16), ("C0041618", 15)),
    *(("C0002978", 4), ("C0032743", 2), ("", 1)),
)
CAPTIONS = (
    "Axial CT of the chest showing a nodule in the left lung, arrow.",
    " Chest X\u2011ray with a \u201cground glass\u201d opacity ",
    "The thrombus in the right jugular vein.CT: computed tomography",
    'A mass, "popcorn" like, 3.5 \u00d7 2 cm',
    "Initial panoramic radiograph.",
)
LICENCES = ("CC BY [Muacevic A, et al. (2019)]", "CC BY-NC [Doe J, et al. (2021)]")
PICTURES = 16  # different ones; a file system allows some 65,000 links to each
LINKS = 30_000


def encoded(number: int, side: int, kind: str = "JPEG") -> bytes:
    """A small picture, grey or in colour by turns."""
    rng = random.Random(number)
    mode = "RGB" if number % 2 else "L"
    noise = Image.frombytes(mode, (8, 8), rng.randbytes(64 * len(mode)))
    buffer = io.BytesIO()
    noise.resize((side, side)).save(buffer, kind)
    return buffer.getvalue()


def plan(counts: dict[str, int], prefix: str = "ROCOv2_2023_") -> dict[str, list[dict[str, str]]]:
    """Rows per split: id, caption, manual and automatic concepts. The 5th of a split has an empty manual field."""
    rng = random.Random(0)
    cuis, weights = zip(*MODALITIES, strict=True)
    made: dict[str, list[dict[str, str]]] = {}
    for split in SPLITS:
        made[split], number = [], 0
        for place in range(counts[split]):
            number += 1 + ((number + 1) in GAPS)
            cui = rng.choices(cuis, weights)[0]
            manual = cui if place != 4 else ""
            more = ["C1699633"] if place == 4 else ["C0817096"]
            made[split].append(
                {
                    "id": f"{prefix}{split}_{number:06d}",
                    "caption": CAPTIONS[place % len(CAPTIONS)] + ("" if place < 5 else f" Case {place}."),
                    "manual": manual,
                    "automatic": ";".join(filter(None, [*(["C0040405"] if place == 4 else [manual]), *more])),
                }
            )
    return made


def write_csv(path: Path, header: tuple[str, ...], rows, delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)


def write_tables(folder: Path, rows: dict[str, list[dict[str, str]]]) -> None:
    for split, made in rows.items():
        write_csv(folder / f"{split}_captions.csv", ("ID", " Caption "), ((r["id"], r["caption"]) for r in made))
        write_csv(folder / f"{split}_concepts.csv", ("ID", "CUIs"), ((r["id"], r["automatic"]) for r in made))
        write_csv(folder / f"{split}_concepts_manual.csv", ("ID ", "CUIs"), ((r["id"], r["manual"]) for r in made))
    every = [row for made in rows.values() for row in made]
    licences = ((r["id"], f"PMC{k}", LICENCES[k % 2], f"https://example.org/{k}") for k, r in enumerate(every))
    write_csv(folder / "license_information.csv", ("ID", "PMCID", "Attribution", "Link"), licences)
    write_csv(folder / "cui_mapping.csv", ("CUI", "Canonical name"), [("C0040405", "X-Ray Computed Tomography")])


def write_pictures(folder: Path, rows: dict[str, list[dict[str, str]]], side: int, where: str) -> None:
    """As files: hard links to a few pictures. `where` has the split in braces."""
    store = folder / ".pictures"  # listed by nobody
    store.mkdir(parents=True, exist_ok=True)
    number = 0
    for split, made in rows.items():
        target = folder / where.format(split=split)
        target.mkdir(parents=True, exist_ok=True)
        for row in made:
            source = store / f"{number % PICTURES}-{number // (PICTURES * LINKS)}.jpg"
            if not source.exists():
                source.write_bytes(encoded(number, side))
            os.link(source, target / f"{row['id']}.jpg")
            number += 1


def write_zips(
    folder: Path, rows: dict[str, list[dict[str, str]]], side: int, method: int = zipfile.ZIP_STORED
) -> None:
    pictures = [encoded(number, side) for number in range(PICTURES)]
    number = 0
    for split, made in rows.items():
        with zipfile.ZipFile(folder / f"{split}_images.zip", "w", method) as archive:
            archive.writestr(f"__MACOSX/{split}/._junk.jpg", b"")
            for row in made:
                archive.writestr(f"{split}/{row['id']}.jpg", pictures[number % PICTURES])
                number += 1


def write_parquet(folder: Path, rows: dict[str, list[dict[str, str]]], side: int, group: int = 100) -> None:
    """As Hugging Face keeps it: `validation`, manual concepts as a list, ['nan'] for an empty field."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    pictures = [encoded(number, side, "PNG") for number in range(PICTURES)]
    for split, made in rows.items():
        name = {"valid": "validation"}.get(split, split)
        table = pa.table(
            {
                "image": [{"bytes": pictures[k % PICTURES], "path": f"{r['id']}.png"} for k, r in enumerate(made)],
                "image_id": [r["id"] for r in made],
                "caption": [r["caption"] for r in made],
                "cui": [r["manual"].split(";") if r["manual"] else ["nan"] for r in made],
            }
        )
        pq.write_table(table, folder / "data" / f"{name}-00000-of-00001.parquet", row_group_size=group)


def make(
    folder: Path,
    counts: tuple[int, int, int] = (12, 6, 8),
    form: str = "unpacked",
    side: int = 32,
    where: str = "{split}_images/{split}",
) -> dict[str, list[dict[str, str]]]:
    """The folder in one form; the rows that it was made from."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = plan(dict(zip(SPLITS, counts, strict=True)))
    if form == "parquet":
        write_parquet(folder, rows, side)
        return rows
    write_tables(folder, rows)
    if form == "zipped":
        write_zips(folder, rows, side)
    else:
        write_pictures(folder, rows, side, where)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", default="80091,17277,19267", help="of train, valid, test")
    parser.add_argument("--form", choices=("unpacked", "zipped", "parquet"), default="unpacked")
    parser.add_argument("--side", type=int, default=64, help="pixels of a picture")
    given = parser.parse_args()
    train, valid, test = map(int, given.rows.split(","))
    made = make(given.folder, (train, valid, test), given.form, given.side)
    print({split: len(rows) for split, rows in made.items()})


if __name__ == "__main__":
    main()
