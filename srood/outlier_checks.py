"""What is wrong with the files of an outlier set, beside its manifest: one line for each problem."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from srood.hashes import file_sha256, pixel_sha256
from srood.hdf5 import check_stored, open_plain

REQUIRED = ("image", "key", "sha256", "label", "id_similarity", "id_class")


def shard_problems(path: Path, manifest: dict[str, Any], check_hashes: bool) -> Iterator[str]:
    """Shards that are missing or of another size; with `check_hashes` also of other bytes than the manifest says."""
    for entry in manifest["shards"]:
        shard = path.parent / entry["file"]
        if not shard.is_file():
            yield f"{shard}: this shard of {path.name} is missing"
        elif shard.stat().st_size != entry["bytes"]:
            yield f"{shard}: was altered ({shard.stat().st_size} bytes, the manifest says {entry['bytes']})"
        elif check_hashes and file_sha256(shard) != entry["sha256"]:
            yield f"{shard}: was altered (its SHA-256 is not the manifest's)"


def evidence_problems(path: Path, manifest: dict[str, Any]) -> Iterator[str]:
    """Evidence that was altered; a set without it is whole."""
    entry = manifest.get("evidence")
    if entry is None:
        return
    file = path.parent / entry["file"]
    if file.is_file() and (file.stat().st_size != entry["bytes"] or file_sha256(file) != entry["sha256"]):
        yield f"{file}: was altered (its SHA-256 is not the manifest's)"


def column_problems(shard: Path, rows: int, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Columns that are not of the manifest's rows, or not stored as they are read: checked before any is read."""
    size = (manifest.get("config") or {}).get("image_size")
    with open_plain(shard) as file:
        if missing := missing_columns(file):
            yield missing
        for name in file:
            data = file[name]
            wanted = (rows, size, size, 3) if name == "image" and size is not None else (rows,)
            if data.shape[: len(wanted)] != wanted:
                yield f"its column '{name}' is {data.shape}, by the manifest {wanted}"
            elif data.dtype.kind not in "biufS" or (name == "image" and data.dtype != np.uint8):
                yield f"its column '{name}' is of type {data.dtype}"
            else:
                try:
                    check_stored(data)
                except ValueError as error:
                    yield f"its column '{name}' {error}"


def missing_columns(file: h5py.File) -> str:
    """The required columns that a shard has not, or an empty text."""
    missing = [name for name in REQUIRED if name not in file]
    return f"has no column {', '.join(missing)}" if missing else ""


def row_problems(shard: Path) -> Iterator[str]:
    """Columns of another length than the images, and images that do not match their SHA-256: every row is read."""
    with open_plain(shard) as file:
        if missing := missing_columns(file):
            yield missing
            return
        rows = len(file["image"])
        for name in file:
            if len(file[name]) != rows:
                yield f"column {name} has {len(file[name])} rows, image has {rows}"
        stored = file["sha256"][:]
        for start in range(0, rows, 4096):
            for offset, image in enumerate(file["image"][start : start + 4096]):
                if pixel_sha256(image).encode() != stored[start + offset]:
                    yield f"row {start + offset}: the pixels do not match their SHA-256"
