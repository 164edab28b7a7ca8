"""Files of the scraping library: whole or not there."""

import pytest

from scraping.files import atomic_write, atomic_writer, json_line, read_json_lines, write_json


def test_a_write_that_fails_leaves_the_file_of_before(tmp_path):
    path = tmp_path / "file"
    atomic_write(path, b"old")
    with pytest.raises(RuntimeError), atomic_writer(path) as stream:
        stream.write(b"half of the n")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    atomic_write(path, b"new", durable=True)
    assert path.read_bytes() == b"new"


def test_lines_that_were_torn_are_skipped(tmp_path):
    path = tmp_path / "lines.jsonl"
    assert list(read_json_lines(path)) == []
    path.write_bytes(json_line({"a": "ü"}) + b'{"torn": \n' + json_line([1]) + b'{"last')
    assert list(read_json_lines(path)) == [{"a": "ü"}, [1]]


def test_json_is_written_readably(tmp_path):
    write_json(tmp_path / "file.json", {"name": "柴犬"})
    assert (tmp_path / "file.json").read_text(encoding="utf-8") == '{\n "name": "柴犬"\n}'
