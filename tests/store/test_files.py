"""Files are replaced whole or not at all."""

import pytest

from harness.store import csv_text, replacing, write_text


@pytest.mark.parametrize("durable", [True, False])
def test_a_write_that_fails_leaves_the_old_file_and_no_draft(durable, tmp_path):
    path = tmp_path / "folder" / "a.bin"
    write_text(path, "old\r\n\u00e9", durable=durable)
    assert path.read_bytes() == "old\r\n\u00e9".encode()

    def interrupted():
        with replacing(path, durable=durable) as file:
            file.write(b"half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == "old\r\n\u00e9".encode()
    assert list(path.parent.iterdir()) == [path]


def test_until_the_end_the_old_file_is_there(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_csv_has_one_kind_of_line_end_and_quotes_what_needs_it():
    assert csv_text(("id", "text"), [(1, 'a,"b"'), (2, "c\nd"), (3, None)]) == 'id,text\n1,"a,""b"""\n2,"c\nd"\n3,\n'
