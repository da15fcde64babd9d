"""The folder in which an unfinished build keeps its parts, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from srood.errors import InputError

GO_ON = "free space; the same command then goes on from here"
MARKER = "recipe.json"
DAMAGED = (ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile)  # what reading such arrays raises
PUT_BACK = "put it back; the same command then goes on from here"


class Workspace:
    """Files named after what they hold, each written under another name and renamed: what exists is complete."""

    def __init__(self, out: Path, recipe: str) -> None:
        """Open the workspace of one output. Parts of another recipe (a hash of inputs and options) are removed.

        Raises:
            InputError: something that is no workspace is in its place.
        """
        self.folder = folder_of(out)
        self.recipe = recipe
        marker = self.folder / MARKER
        self.resumed = False
        if os.path.lexists(self.folder):
            self._check_ours(marker)
            self.resumed = _recipe_in(self.folder) == self.recipe
            if not self.resumed:
                shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self.write_json("recipe", {"recipe": self.recipe})
        except OSError:
            if not self.resumed:
                self.remove()
            raise

    def write_json(self, name: str, value: Any) -> None:
        """Store a JSON document."""
        self._replace(f"{name}.json", lambda path: path.write_text(json.dumps(value, sort_keys=True)))

    def write(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Store named arrays."""

        def save(path: Path) -> None:
            with open(path, "wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]

        self._replace(f"{name}.npz", save)

    def read(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays stored under a name, or None; a file that a crash has damaged is removed, to be made again."""
        path = self.folder / f"{name}.npz"
        try:
            return read_arrays(path) if path.exists() else None
        except DAMAGED:
            path.unlink()
            return None

    def read_array(self, name: str, key: str) -> np.ndarray:
        """One of the arrays stored under a name."""
        with np.load(self.folder / f"{name}.npz", allow_pickle=False) as stored:
            return stored[key]

    def remove(self) -> None:
        """Remove the folder: the build is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check_ours(self, marker: Path) -> None:
        """See that the folder is a workspace, or empty, as one is that was killed as it was made."""
        if self.folder.is_dir() and not self.folder.is_symlink():
            names = {path.name for path in self.folder.iterdir()}
            if marker.name in names or names <= {_unfinished(marker).name}:
                return
        raise InputError(
            f"{self.folder}: is where a build keeps its parts, and holds something else; move it away, or name another "
            "--out"
        )

    def _replace(self, name: str, save: Any) -> None:
        unfinished = _unfinished(self.folder / name)
        save(unfinished)
        with open(unfinished, "rb+") as written:
            os.fsync(written.fileno())  # else the name may be on the disk before the content is
        os.replace(unfinished, self.folder / name)


def was_putting_in_place(out: Path, recipe: str) -> bool:
    """Whether the set of this recipe was complete in its workspace, so that some of its files may be in place."""
    return _recipe_in(folder_of(out)) == recipe and (folder_of(out) / out.name).exists()


def folder_of(out: Path) -> Path:
    """Where the workspace of an output is."""
    return out.with_name(out.name + ".work")


def _recipe_in(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / MARKER).read_text())["recipe"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.name}.unfinished")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All named arrays of a file; their checksums are compared."""
    with np.load(path, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}
