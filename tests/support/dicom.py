"""DICOM files of pydicom, as they are and changed."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from harness.imaging.files import FileImage


def dicom_file(name) -> Path:
    found = get_testdata_file(name, download=False)
    assert found, name
    return Path(str(found))


def dicom_data(name) -> Dataset:
    return pydicom.dcmread(dicom_file(name))


def loaded(ds: Dataset, tmp_path: Path) -> np.ndarray:
    """What comes out of a changed file: height x width, after a check that it is grey."""
    path = tmp_path / "changed.dcm"
    ds.save_as(path)
    pixels = np.asarray(FileImage(path).load())
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def full_range(values, low, high):
    """Plain formula, kept apart from the code under test."""
    return np.floor(np.clip((np.asarray(values, float) - low) / (high - low), 0, 1) * 255 + 0.5).astype(np.uint8)


def close(a, b):
    return np.abs(a.astype(int) - b.astype(int)).max() <= 1
