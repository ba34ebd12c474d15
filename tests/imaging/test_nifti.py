"""Slices of NIfTI volumes: sides, planes, windows, series, damage."""

import builtins
import gzip
import io
from pathlib import Path

import nibabel
import numpy as np
import pytest

from harness.contracts import ImageError, RequestError
from harness.imaging.files import FileImage
from harness.imaging.view import View, view_of
from tests.support.caption_tables import table, write_csv
from tests.support.images import BytesImage

DATA = Path(nibabel.__file__).parent / "tests" / "data"
RIGHT, FRONT, HEAD = 0, 1, 2  # axes of the world, in millimetres: +x is the patient's right, +y front, +z head


def volume(path: Path, orientation: str = "RAS", spot=(2, 12, 7), shape=(10, 14, 9), spacing=(1, 1, 1)) -> Path:
    """Dark, with one bright voxel at `spot` of the world's axes, stored in another order and direction of axes."""
    values = np.zeros(shape, np.int16)
    values[spot] = 1000
    image = nibabel.Nifti1Image(values, np.diag([*spacing, 1.0]))
    wanted = nibabel.orientations.axcodes2ornt(orientation)
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), wanted)
    nibabel.save(image.as_reoriented(turn), path)
    return path


def bright(path: Path, **view) -> tuple[tuple[int, int], tuple[int, int]]:
    """Row and column of the bright voxel, and the picture's size as rows and columns."""
    pixels = np.asarray(FileImage(path, view=View(**{"window": (500.0, 1000.0)} | view)).load())
    assert (pixels == pixels[..., :1]).all()
    (place,) = np.argwhere(pixels[..., 0] == 255)
    return tuple(place), pixels.shape[:2]


ORIENTATIONS = ["RAS", "LAS", "LPS", "RPI", "PIR", "SLA", "ASR"]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_axial_has_the_patients_left_on_the_right_and_the_front_on_top(orientation, tmp_path):
    """Voxel x=2 of 10 lies on the patient's left: right half of the picture. y=12 of 14 lies in front: top."""
    path = volume(tmp_path / "a.nii.gz", orientation)
    assert bright(path, frame=7) == ((14 - 1 - 12, 10 - 1 - 2), (14, 10))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_coronal_has_the_head_on_top_and_the_patients_left_on_the_right(orientation, tmp_path):
    path = volume(tmp_path / "a.nii", orientation)
    assert bright(path, plane="coronal", frame=12) == ((9 - 1 - 7, 10 - 1 - 2), (9, 10))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_sagittal_has_the_head_on_top_and_the_face_on_the_left(orientation, tmp_path):
    path = volume(tmp_path / "a.nii.gz", orientation)
    assert bright(path, plane="sagittal", frame=2) == ((9 - 1 - 7, 14 - 1 - 12), (9, 14))


def test_the_middle_slice_is_taken(tmp_path):
    path = volume(tmp_path / "a.nii", "LPS", spot=(2, 12, 4))
    assert bright(path) == bright(path, frame=4)


def test_a_frame_beyond_the_volume_is_refused(tmp_path):
    with pytest.raises(ImageError, match=r"frame 9 was asked for, the file has 9 \(0 to 8\)"):
        FileImage(volume(tmp_path / "a.nii"), view=View(frame=9)).load()


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
def test_thick_slices_are_stretched_to_square_pixels(plane, tmp_path):
    path = volume(tmp_path / "a.nii", "LAS", spacing=(1, 1, 3))
    image = FileImage(path, view=View(plane=plane)).load()
    assert image.size == (10 if plane == "coronal" else 14, 27)
    assert FileImage(path).load().size == (10, 14)


def series() -> np.ndarray:
    values = np.zeros((4, 5, 3, 6), np.float32)
    values[...] = np.arange(6) * 10
    values[0, 0] += 5
    return values


@pytest.mark.parametrize("number", [0, 4])
def test_one_volume_of_a_series(number, tmp_path):
    nibabel.save(nibabel.Nifti2Image(series(), np.eye(4)), tmp_path / "a.nii")
    pixels = np.asarray(FileImage(tmp_path / "a.nii", view=View(volume=number, window=(50.0, 100.0))).load())
    assert pixels[0, 0, 0] == round(number * 10 * 2.55)
    assert pixels[4, 3, 0] == round((number * 10 + 5) * 2.55)
    with pytest.raises(ImageError, match="volume 6 was asked for, the file has 6"):
        FileImage(tmp_path / "a.nii", view=View(volume=6)).load()


def test_scaled_values_and_percentiles(tmp_path):
    values = np.arange(1000, dtype=np.int16).reshape(10, 10, 10)
    image = nibabel.Nifti1Image(values, np.eye(4))
    image.header.set_slope_inter(2, -1000)
    nibabel.save(image, tmp_path / "a.nii")
    stored = np.asarray(nibabel.load(tmp_path / "a.nii").dataobj)[:, :, 4]
    low, high = np.percentile(stored, (0.5, 99.5))
    expected = np.clip((stored - low) / (high - low), 0, 1).T[::-1, ::-1] * 255
    assert np.abs(np.asarray(FileImage(tmp_path / "a.nii").load())[..., 0] - expected).max() <= 0.5


@pytest.mark.parametrize(
    ("name", "size"),
    [("example4d.nii.gz", (128, 96)), ("example_nifti2.nii.gz", (32, 20)), ("anatomical.nii", (33, 41))],
)
def test_real_files(name, size):
    image = FileImage(DATA / name).load()
    assert image.mode == "RGB"
    assert image.size == size
    assert np.asarray(image).std() > 20


def test_only_the_slice_is_read(tmp_path, monkeypatch):
    path = volume(tmp_path / "a.nii", shape=(64, 64, 64), spot=(1, 1, 1))
    opened = path.open("rb", buffering=0)
    seen = []

    class Counting(io.RawIOBase):
        def readinto(self, buffer):
            count = opened.readinto(buffer)
            seen.append(count)
            return count

        def seek(self, *place):
            return opened.seek(*place)

        def tell(self):
            return opened.tell()

        def readable(self):
            return True

        def seekable(self):
            return True

    monkeypatch.setattr(FileImage, "open", lambda self: Counting())
    FileImage(path).load()
    assert sum(seen) < 64 * 64 * 64 * 2 / 4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nibabel.Nifti1Image(np.zeros((4, 4, 4), np.complex64), np.eye(4)), "complex64"),
        (lambda: nibabel.Nifti1Image(np.zeros((4, 4, 4), [(c, "u1") for c in "RGB"]), np.eye(4)), "one channel"),
        (lambda: nibabel.Nifti1Image(np.zeros((4, 4, 4, 1, 3), np.uint8), np.eye(4)), "expected a volume"),
        (lambda: nibabel.Nifti1Image(np.zeros((4, 4), np.uint8), np.eye(4)), "expected a volume"),
    ],
)
def test_what_is_no_grey_volume_is_refused(make, words, tmp_path):
    nibabel.save(make(), tmp_path / "a.nii")
    with pytest.raises(ImageError, match=words):
        FileImage(tmp_path / "a.nii").load()


def test_a_header_that_claims_too_much_is_refused_before_it_is_unpacked(tmp_path):
    data = bytearray(volume(tmp_path / "a.nii").read_bytes())
    data[42:48] = np.array([32000] * 3, "<i2").tobytes()
    with pytest.raises(ImageError, match="more than"):
        BytesImage(gzip.compress(bytes(data))).load()


@pytest.mark.parametrize("cut", [3, 200, 400, 1500])
@pytest.mark.parametrize("packed", [False, True])
def test_truncated_files_are_refused(cut, packed, tmp_path):
    data = volume(tmp_path / "a.nii").read_bytes()[:cut]
    with pytest.raises(ImageError):
        BytesImage(gzip.compress(data) if packed else data).load()


def test_other_compressed_files_are_no_picture():
    with pytest.raises(ImageError, match="NIfTI file cannot be decoded"):
        BytesImage(gzip.compress(b"hello" * 1000)).load()


def test_flipped_bytes_are_a_picture_or_an_image_error(tmp_path):
    data = volume(tmp_path / "a.nii").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for place in rng.integers(0, 352, 4):
            damaged[place] = rng.integers(256)
        try:
            assert BytesImage(bytes(damaged)).load().mode == "RGB"
        except ImageError:
            refused += 1
    assert 0 < refused < 150


def test_without_nibabel_the_package_is_named(tmp_path, monkeypatch):
    path = volume(tmp_path / "a.nii")
    plain = builtins.__import__

    def without(name, *rest):
        if name.startswith("nibabel"):
            raise ImportError(name)
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImageError, match=r"pip install 'capbench\[nifti\]'"):
        FileImage(path).load()


def test_a_table_of_volumes(tmp_path):
    volume(tmp_path / "a.nii.gz")
    path = write_csv(tmp_path / "t.csv", [("a.nii.gz", "A.", "test")])
    prints = set()
    for plane, shape in (("axial", (10, 14)), ("coronal", (10, 9)), ("sagittal", (14, 9))):
        split = table(path, view={"plane": plane, "frame": None, "volume": 0, "window": "brain"}).load("test")
        assert split.samples[0].images[0].load().size == shape
        prints.add(split.fingerprint)
    assert len(prints) == 3, "another picture of the same bytes is other data"


@pytest.mark.parametrize(
    "values",
    [{"frame": -1}, {"volume": -1}, {"plane": "oblique"}, {"window": "liver"}, {"frame": "middle"}, {"slice": 3}],
)
def test_views_are_checked(values):
    with pytest.raises(RequestError, match=r"dataset\.view"):
        view_of(values)
