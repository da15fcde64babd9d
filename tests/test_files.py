import pytest

from srood.files import replace_file, write_text


def test_a_failed_write_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "grüße")

    def fail(beside):
        beside.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_file(path, fail)
    assert path.read_bytes() == "grüße".encode()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]
