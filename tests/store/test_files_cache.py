"""What is remembered of pictures: never beyond a change of their file, by several processes at once."""

import hashlib
import os
import pickle
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from PIL import Image

from harness.contracts import ImageError, RequestError
from harness.imaging.files import FileImage
from harness.imaging.view import View
from harness.store import files_cache as memo_module
from harness.store.files_cache import Memo


@pytest.fixture
def settled(monkeypatch):
    """Files of this second count as settled."""
    monkeypatch.setattr(memo_module, "SETTLED", 0)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8), (1, 2, 3)).save(path)
    return path


class Asked:
    """An answer that counts how often it was worked out."""

    def __init__(self, value=b"answer"):
        self.value, self.times = value, 0

    def __call__(self):
        self.times += 1
        return self.value


def test_an_unchanged_file_is_asked_once(settled, path, tmp_path):
    answer = Asked()
    for memo in (Memo(str(tmp_path / "cache")), Memo(str(tmp_path / "cache"))):
        assert [memo.ask("sha256", path, "", answer) for _ in range(2)] == [b"answer"] * 2
    assert answer.times == 1


@pytest.mark.parametrize("changed", ["question", "part", "bytes", "time", "file"])
def test_whatever_changes_is_asked_again(changed, settled, path, tmp_path):
    memo, answer = Memo(str(tmp_path / "cache")), Asked()
    memo.ask("q", path, "p", answer)
    question, part, now = "q", "p", path
    if changed == "question":
        question = "r"
    elif changed == "part":
        part = "o"
    elif changed == "bytes":
        path.write_bytes(path.read_bytes() + b" ")
    elif changed == "time":
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    else:
        now = tmp_path / "b.png"
        now.write_bytes(path.read_bytes())
    memo.ask(question, now, part, answer)
    assert answer.times == 2


def test_same_size_and_set_back_time_do_not_hide_other_bytes(settled, path, tmp_path):
    """What `cp -p` and archives with fixed times do."""
    memo = Memo(str(tmp_path / "cache"))
    old, before = path.stat(), FileImage(path, memo=memo).digest()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (old.st_size, old.st_mtime_ns)
    assert FileImage(path, memo=memo).digest() == hashlib.sha256(bytes(data)).hexdigest() != before


def test_a_file_of_this_moment_is_not_remembered(path, tmp_path):
    """It may change again within the same tick of the clock, with the same size."""
    memo, answer = Memo(str(tmp_path / "cache")), Asked()
    for _ in range(2):
        memo.ask("q", path, "", answer)
    assert answer.times == 2


def test_a_file_that_changes_while_it_is_read_is_not_remembered(settled, path, tmp_path):
    memo = Memo(str(tmp_path / "cache"))

    def reading():
        path.write_bytes(b"other")
        return b"first"

    assert memo.ask("q", path, "", reading) == b"first"
    os.utime(path, ns=(0, 0))
    assert memo.ask("q", path, "", Asked(b"second")) == b"second"


def test_failures_are_not_remembered(settled, path, tmp_path):
    memo = Memo(str(tmp_path / "cache"))

    def failing():
        raise ImageError("no")

    with pytest.raises(ImageError):
        memo.ask("q", path, "", failing)
    assert memo.ask("q", path, "", Asked()) == b"answer"


def test_a_full_check_asks_everything_once_more(settled, path, tmp_path):
    folder, answer = str(tmp_path / "cache"), Asked()
    Memo(folder).ask("q", path, "", answer)
    anew = Memo(folder, anew=True)
    answer.value = b"corrected"
    assert [anew.ask("q", path, "", answer) for _ in range(2)] == [b"corrected"] * 2
    assert answer.times == 2
    assert Memo(folder).ask("q", path, "", answer) == b"corrected"
    assert answer.times == 2


@pytest.mark.parametrize("damage", ["flipped", "file"])
def test_a_damaged_memory_is_no_answer(damage, settled, path, tmp_path):
    folder = tmp_path / "cache"
    Memo(str(folder)).ask("q", path, "", Asked())
    if damage == "file":
        (folder / memo_module.FILE).write_bytes(b"no database at all, but long enough to be looked at" * 100)
        for more in ("-wal", "-shm"):
            (folder / f"{memo_module.FILE}{more}").unlink(missing_ok=True)
    else:
        with closing(sqlite3.connect(folder / memo_module.FILE)) as connection, connection:
            connection.execute("UPDATE known SET value = CAST(substr(value, 1, length(value) - 1) || 'X' AS BLOB)")
    memo, answer = Memo(str(folder)), Asked()
    for _ in range(2):
        assert memo.ask("q", path, "", answer) == b"answer"
    assert answer.times == 1
    assert Memo(str(folder)).ask("q", path, "", answer) == b"answer"
    assert len(list(folder.glob("*.damaged-*"))) == (damage == "file"), "where `capbench clean` finds it"


def test_a_folder_that_cannot_be_written_is_named(path, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"dataset\.cache=.*choose another folder, or null"):
        Memo(str(tmp_path / "file" / "cache")).ask("q", path, "", Asked())


def test_building_one_touches_nothing(tmp_path):
    Memo(str(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_a_missing_file_says_so_itself(tmp_path):
    with pytest.raises(ImageError, match="No such file"):
        FileImage(tmp_path / "none.png", memo=Memo(str(tmp_path / "cache"))).digest()


def test_another_view_is_another_digest(path, settled, tmp_path):
    memo = Memo(str(tmp_path / "cache"))
    plain = FileImage(path, memo=memo).digest()
    assert plain == hashlib.sha256(path.read_bytes()).hexdigest()
    assert FileImage(path, view=View(frame=1), memo=memo).digest() != plain


def test_it_survives_a_fork_and_a_pickle(settled, path, tmp_path):
    memo, answer = Memo(str(tmp_path / "cache")), Asked()
    memo.ask("q", path, "", answer)
    child = os.fork()
    if child == 0:
        same = memo.ask("q", path, "", answer) == b"answer" and answer.times == 1
        new = memo.ask("child", path, "", Asked(b"child")) == b"child"
        os._exit(0 if same and new else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert memo.ask("child", path, "", answer) == b"child"
    assert pickle.loads(pickle.dumps(memo)).ask("q", path, "", answer) == b"answer"
    assert answer.times == 1


WRITER = """
import sys
from harness.store.files_cache import Memo
from harness.store import files_cache
files_cache.SETTLED = 0
memo = Memo(sys.argv[1])
for number in range(300):
    name = sys.argv[3] if number >= 150 else ""
    memo.ask(f"{number % 150} {name}", sys.argv[2], "", lambda: str(number % 150).encode())
"""


def test_two_processes_at_once(settled, path, tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "cache"), str(path)]
    running = [subprocess.Popen([*command, name]) for name in ("a", "b")]
    assert [process.wait(60) for process in running] == [0, 0]
    memo, answer = Memo(str(tmp_path / "cache")), Asked()
    for number in range(150):
        for name in ("", "a", "b"):
            assert memo.ask(f"{number} {name}", path, "", answer) == str(number).encode()
    assert answer.times == 0
