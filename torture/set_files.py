"""A small outlier set with every field of a built one, and copies of it to be spoilt."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from srood import outliers
from srood.hashes import file_sha256, pixel_sha256
from torture.hostile import pictures

ROWS, SHARDS = 200, 2


def make_set(folder: Path, seed: int) -> Path:
    """Write a set of 200 rows in two shards; every field of the manifest that a command reads is there."""
    images = np.stack(pictures(ROWS, seed))
    number = np.arange(ROWS)
    columns = {
        "image": images,
        "key": np.array([b"corpus/%d.png" % row for row in number]),
        "sha256": np.array([pixel_sha256(image).encode() for image in images]),
        "label": number % 3,
        "id_similarity": (number / ROWS).astype(np.float32),
        "id_class": number % 2,
        "id_ness": (number / ROWS - 2).astype(np.float32),
        "cluster": number % 5,
    }
    halves = ({name: values[part] for name, values in columns.items()} for part in np.split(number, SHARDS))
    (folder / "scratch").mkdir(parents=True)
    made = outliers.write_set(folder / "mini.h5", halves, SHARDS, _manifest(), folder / "scratch")
    (folder / "scratch").rmdir()
    return made


def copy_set(original: Path, folder: Path) -> Path:
    """A copy of a set in a new folder."""
    shutil.copytree(original.parent, folder)
    return folder / original.name


def rewrite_manifest(path: Path, text: str | bytes, checked: bool = True) -> Path:
    """Replace a manifest's document; with a checksum that fits, as one who means harm would write it."""
    data = text.encode() if isinstance(text, str) else text
    path.unlink()
    with h5py.File(path, "w") as file:
        file["manifest"] = np.bytes_(data)
        if checked:
            file["manifest_sha256"] = np.bytes_(hashlib.sha256(data).hexdigest())
    return path


def document(path: Path) -> dict[str, Any]:
    """The manifest, by h5py alone."""
    with h5py.File(path) as file:
        return dict(json.loads(file["manifest"][()]))


def edit_manifest(path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """Change a manifest's document in place."""
    content = document(path)
    edit(content)
    return rewrite_manifest(path, json.dumps(content))


def edit_shard(path: Path, edit: Callable[[h5py.File], object], number: int = 0) -> Path:
    """Change a shard, and the manifest so that its size and hash are those of the changed shard."""
    shard = path.parent / document(path)["shards"][number]["file"]
    with h5py.File(shard, "r+") as file:
        edit(file)

    def describe(content: dict[str, Any]) -> None:
        content["shards"][number] |= {"bytes": shard.stat().st_size, "sha256": file_sha256(shard)}

    return edit_manifest(path, describe)


@functools.cache
def _manifest() -> dict[str, Any]:
    """The manifest of a set that `curate build` made of twelve images."""
    from curate.build import build
    from curate.config import BuildConfig
    from torture.hostile import png, write_id_set

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_id_set(folder / "id", pictures(40, 1))
        (folder / "corpus").mkdir()
        for row, image in enumerate(pictures(12, 2)):
            (folder / "corpus" / f"{row}.png").write_bytes(png(image))
        settings: dict[str, Any] = {"exclude_labels": "none", "clusters": 1, "id_recall": 0.0, "workers": 1}
        settings |= {"source": (str(folder / "corpus"),), "id": str(folder / "id"), "out": folder / "mini.h5"}
        content = dict(build(BuildConfig(**settings, size=12)).manifest)
    for name in ("format", "schema_version", "rows", "shards", "evidence"):
        content.pop(name)
    return content | {"label_names": ["cat", "dog", "emu"]}
