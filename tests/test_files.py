import os

import pytest

from srood.errors import InputError
from srood.files import check_folder, replace_file, write_text


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


def test_a_folder_can_be_made_where_its_nearest_parent_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_folder(tmp_path)
    check_folder(tmp_path / "a" / "b" / "c")
    check_folder(type(tmp_path)("a/b"))
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name, message in (
        ("file", "--out .*file: is a file; name a folder"),
        ("link", "--out .*link: is a file; name a folder"),
        ("file/a", "--out .*file/a: cannot be made, for .*file is a file"),
        ("file/a/b", "--out .*file/a/b: cannot be made, for .*file is a file"),
    ):
        with pytest.raises(InputError, match=message):
            check_folder(tmp_path / name, "--out ")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_cannot_be_made_in_one_that_is_read_only(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    for folder in (tmp_path / "closed", tmp_path / "closed" / "a" / "b"):
        with pytest.raises(InputError, match="closed cannot be written to"):
            check_folder(folder)
