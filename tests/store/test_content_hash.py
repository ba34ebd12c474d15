"""The hash of a checkpoint's file is its bytes', and a large file is read once for as long as it stays as it is."""

import hashlib
from pathlib import Path

import pytest

from harness.store import files_cache
from harness.store.files_cache import content_hash


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user's cache of its own, where files of this second count as settled and 4 bytes are large."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(files_cache, "SETTLED", 0)
    monkeypatch.setattr(files_cache, "LARGE", 4)
    return tmp_path / "home"


@pytest.fixture
def reads(monkeypatch):
    """The files that are hashed."""
    found, whole = [], hashlib.file_digest
    noted = lambda file, kind: found.append(Path(file.name).name) or whole(file, kind)  # noqa: E731
    monkeypatch.setattr(hashlib, "file_digest", noted)
    return found


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


def test_a_large_file_is_read_once_and_again_after_a_change(home, weights, reads):
    for _ in range(3):
        assert content_hash(weights) == hashlib.sha256(b"weights").digest()
    assert reads == ["model.safetensors"]
    weights.write_bytes(b"WEIGHTS")  # of the same size
    assert content_hash(weights) == hashlib.sha256(b"WEIGHTS").digest()
    assert len(reads) == 2
    assert (home / "capbench" / files_cache.USER_FILE).is_file()


def test_a_small_file_leaves_nothing_behind(home, tmp_path):
    (tmp_path / "config.json").write_bytes(b"{}")
    assert content_hash(tmp_path / "config.json") == hashlib.sha256(b"{}").digest()
    assert not home.exists()


def test_without_a_folder_to_write_to_it_is_hashed_each_time(home, weights, reads):
    home.write_text("a file where the folder should be")
    for _ in range(2):
        assert content_hash(weights) == hashlib.sha256(b"weights").digest()
    assert len(reads) == 2


def test_without_a_home_it_is_hashed_each_time(home, weights, reads, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    for _ in range(2):
        content_hash(weights)
    assert len(reads) == 2


def test_a_missing_file_says_so(home, tmp_path):
    with pytest.raises(FileNotFoundError):
        content_hash(tmp_path / "gone")
