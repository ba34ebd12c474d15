"""The cache of scores and features: several processes, damage, and that losing it loses nothing."""

import multiprocessing
import os
import pickle
import sqlite3

import pytest

from harness.store.cache import FILE, Cache

KEY, OTHER = "00" * 32, "ff" * 32


def test_what_is_written_is_read_by_the_next_command(tmp_path):
    cache = Cache(tmp_path)
    cache.scores.write({KEY: b"one", OTHER: b""})
    cache.features[KEY] = b"\x00\xff" * 1000
    again = Cache(tmp_path)
    assert again.scores.read([KEY, OTHER, "ab" * 32]) == {KEY: b"one", OTHER: b""}
    assert dict(again.features) == {KEY: b"\x00\xff" * 1000}
    assert len(again.scores) == 2


def test_it_is_a_mapping(tmp_path):
    table = Cache(tmp_path).features
    assert KEY not in table
    with pytest.raises(KeyError):
        table[KEY]
    with pytest.raises(KeyError):
        del table[KEY]
    table[KEY] = b"a"
    table[KEY] = b"b"
    assert table[KEY] == b"b"
    del table[KEY]
    assert list(table) == []


def test_more_keys_than_one_query_takes(tmp_path):
    table = Cache(tmp_path).scores
    items = {f"{number:064x}": str(number).encode() for number in range(1234)}
    table.write(items)
    assert table.read([*items, KEY[:-1] + "f" * 1]) == items


@pytest.mark.parametrize("damage", ["not a database", "torn"])
def test_a_damaged_file_is_set_aside_with_a_warning(damage, tmp_path, capsys):
    cache = Cache(tmp_path)
    cache.scores.write({f"{number:064x}": b"x" * 500 for number in range(500)})
    path = tmp_path / FILE
    cache.close()
    content = path.read_bytes()
    path.write_bytes(b"not a database, " * 100 if damage == "not a database" else content[:4096] + b"\xa5" * 60_000)
    again = Cache(tmp_path)
    found = again.scores.read([f"{number:064x}" for number in range(500)])
    assert set(found.values()) <= {b"x" * 500}, "no value is made up"
    assert len(found) < 500
    again.scores.write({KEY: b"new"})
    assert Cache(tmp_path).scores[KEY] == b"new"
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1
    assert "damaged" in capsys.readouterr().err


def test_a_flipped_bit_in_a_value_is_no_value(tmp_path):
    cache = Cache(tmp_path)
    cache.scores.write({KEY: b'{"f1": 0.25}'})
    cache.close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("UPDATE scores SET value = CAST(replace(value, '0.25', '0.75') AS BLOB)")
        (value,) = connection.execute("SELECT value FROM scores").fetchone()
        connection.execute("UPDATE scores SET value = ?", [value[:-2] + b"9}"])
    assert Cache(tmp_path).scores.read([KEY]) == {}


def _writer(folder, start):
    table = Cache(folder).scores
    for number in range(start, start + 200):
        table.write({f"{number:064x}": str(number).encode()})


def test_it_survives_a_fork_and_a_pickle(tmp_path):
    cache = Cache(tmp_path)
    cache.scores[KEY] = b"parent"
    child = os.fork()
    if child == 0:
        same = cache.scores[KEY] == b"parent"
        cache.scores[OTHER] = b"child"
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert dict(cache.scores) == {KEY: b"parent", OTHER: b"child"}
    assert dict(pickle.loads(pickle.dumps(cache)).scores) == dict(cache.scores)


def test_several_processes_write_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_writer, args=(tmp_path, start)) for start in (0, 100, 300)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    assert len(Cache(tmp_path).scores) == 500
