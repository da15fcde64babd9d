"""The folder in which an unfinished build keeps its parts, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np


class Workspace:
    """Files named after what they hold, each written under another name and renamed: what exists is complete."""

    def __init__(self, out: Path, recipe: str) -> None:
        """Open the workspace of one output. Parts of another recipe (a hash of inputs and options) are removed."""
        self.folder = out.with_name(out.name + ".work")
        self.recipe = recipe
        marker = self.folder / "recipe.json"
        self.resumed = False
        if self.folder.exists():
            try:
                self.resumed = json.loads(marker.read_text())["recipe"] == self.recipe
            except (OSError, ValueError, KeyError):
                self.resumed = False
            if not self.resumed:
                shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write_json("recipe", {"recipe": self.recipe})

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
        """The arrays stored under a name, or None."""
        path = self.folder / f"{name}.npz"
        return read_arrays(path) if path.exists() else None

    def read_array(self, name: str, key: str) -> np.ndarray:
        """One of the arrays stored under a name."""
        with np.load(self.folder / f"{name}.npz", allow_pickle=False) as stored:
            return stored[key]

    def remove(self) -> None:
        """Remove the folder: the build is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _replace(self, name: str, save: Any) -> None:
        unfinished = self.folder / f"{name}.unfinished"
        save(unfinished)
        os.replace(unfinished, self.folder / name)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All named arrays of a file; their checksums are compared."""
    with np.load(path, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}
