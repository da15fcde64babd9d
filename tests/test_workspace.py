"""The folder of an unfinished build: what is in its place and is none is never removed."""

from __future__ import annotations

import pytest

from curate.workspace import Workspace
from srood.errors import InputError


def test_a_folder_that_is_no_workspace_is_refused_and_stays(tmp_path):
    mine = tmp_path / "x.h5.work" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(InputError, match=r"x\.h5\.work: is where a build keeps its parts, and holds something else"):
        Workspace(tmp_path / "x.h5", "recipe")
    assert mine.read_text() == "mine"
    (tmp_path / "y.h5.work").symlink_to(mine.parent)
    with pytest.raises(InputError, match="holds something else"):
        Workspace(tmp_path / "y.h5", "recipe")


@pytest.mark.parametrize("names", [[], ["recipe.json.unfinished"], ["recipe.json", "part-000000.npz"]])
def test_what_a_build_left_is_used_or_removed(tmp_path, names):
    folder = tmp_path / "x.h5.work"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{")
    work = Workspace(tmp_path / "x.h5", "recipe")
    assert not work.resumed and [path.name for path in folder.iterdir()] == ["recipe.json"]
    assert Workspace(tmp_path / "x.h5", "recipe").resumed
