"""Where `curate rebuild` writes: over no set that it reads, into no folder that it did not make, after all checks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from rebuilt_sets import files, refusal, write_document

from curate.deriving.select import SelectConfig, select
from curate.rebuilding.rebuild import MARKER, rebuild
from srood.outliers import read_manifest, verify


@pytest.fixture
def derived(plain_set, tmp_path) -> Path:
    """A set selected from a/mini.h5, d/some.h5."""
    parent = Path(shutil.copytree(plain_set.parent, tmp_path / "a")) / "mini.h5"
    return select(SelectConfig(parent, tmp_path / "d" / "some.h5", size=20)).out


def test_a_set_that_is_read_is_not_written_over(derived, tmp_path):
    a = tmp_path / "a"
    before = files(a)
    (tmp_path / "link").symlink_to(a)
    for out in (a / "mini.h5", tmp_path / "link" / "mini.h5"):
        message = refusal(derived, out=out, look_in=[a], overwrite=True)
        assert message == f"--out {out}: is a set that it is made from ({a / 'mini.h5'}); name another file"
    (a / "mini.h5").rename(a / "renamed.h5")  # its shards keep their names
    (derived.parent / "some.h5").rename(derived.parent / "mini.h5")
    document = read_manifest(derived.parent / "mini.h5")
    document["derived"]["parents"][0]["file"] = "renamed.h5"
    index = write_document(tmp_path / "index" / "mini.h5", document)
    assert "is a set that it is made from" in refusal(index, out=a / "mini.h5", look_in=[a], overwrite=True)
    assert {name.replace("renamed.h5", "mini.h5"): content for name, content in files(a).items()} == before
    beside = write_document(a / "some.h5", document)  # would be completed with shards called mini-...
    document["shards"] = [{**entry, "file": entry["file"].replace("some-", "mini-")} for entry in document["shards"]]
    write_document(beside, document)
    shards = {name: content for name, content in files(a).items() if "-of-" in name}
    assert "is a set that it is made from" in refusal(beside, look_in=[a])
    assert {name: content for name, content in files(a).items() if "-of-" in name} == shards


def test_shards_of_the_set_itself_are_not_written_over(derived, tmp_path):
    renamed = derived.rename(derived.with_name("other.h5"))
    before = files(derived.parent)
    message = refusal(renamed, out=derived, look_in=[tmp_path / "a"], overwrite=True)
    assert message.startswith(f"--out {derived}: is a set that it is made from ({renamed})")
    assert files(derived.parent) == before and not verify(renamed)


def test_files_of_a_set_whose_manifest_was_renamed_stay(derived, tmp_path):
    folder = Path(shutil.copytree(derived.parent, tmp_path / "e"))
    (folder / "some.h5").rename(folder / "old.h5")
    before = files(folder)
    message = refusal(derived, out=folder / "some.h5", look_in=[tmp_path / "a"])
    assert "some-00000-of-00001.h5 is in the way, a file of another set; give --overwrite" in message
    assert files(folder) == before and not verify(folder / "old.h5")
    (folder / "some.h5.parents").mkdir()
    (folder / "some.h5.parents" / MARKER).touch()  # as one has it that was stopped before its last rename
    assert rebuild(str(derived), folder / "some.h5", look_in=[tmp_path / "a"]).agreement.bytes_agree


def test_what_cannot_be_written_is_said_before_any_parent_is_made(derived, recorded_world, tmp_path):
    shutil.rmtree(tmp_path / "a")  # so that the parent would be made first
    settings = {"look_in": [recorded_world]}
    out = tmp_path / "e" / "noext"
    assert refusal(derived, out=out, **settings) == f"--out {out}: must end in .h5"
    assert refusal(derived, out=tmp_path / "x.h5", workers=-3, **settings) == "--workers -3: must be at least 1"
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "x.h5"
    assert refusal(derived, out=out, **settings).startswith(f"--out {out}: {tmp_path / 'file'}: is a file; name a")
    assert sorted(os.listdir(tmp_path)) == ["d", "file"]


def test_folders_that_the_user_made_stay(derived, recorded_world, tmp_path):
    shutil.rmtree(tmp_path / "a")
    out = tmp_path / "e" / "some.h5"
    mine = tmp_path / "e" / "some.h5.parents"
    (mine / "0").mkdir(parents=True)
    (mine / "0" / "notes.txt").write_text("mine")
    message = refusal(derived, out=out, look_in=[recorded_world])
    assert message.startswith(f"{mine}: is in the way and was not made by `curate rebuild`; move it")
    assert (mine / "0" / "notes.txt").read_text() == "mine" and not out.exists()
    mine.rename(tmp_path / "moved")
    assert rebuild(str(derived), out, look_in=[recorded_world]).agreement.bytes_agree
    assert files(out.parent) == files(derived.parent) and not mine.exists()

    index = Path(shutil.copy(derived, tmp_path / "moved"))
    mine = (tmp_path / "moved").rename(tmp_path / "index") / "some.h5.rebuilt"
    mine.mkdir()
    (mine / "some.h5").write_text("mine")
    assert "is in the way" in refusal(mine.with_name(index.name), look_in=[recorded_world])
    assert (mine / "some.h5").read_text() == "mine"
    (mine / "some.h5").unlink()  # an empty folder may be used
    assert rebuild(str(mine.with_name(index.name)), look_in=[recorded_world]).agreement.bytes_agree
    assert not mine.exists()
