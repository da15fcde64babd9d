"""The sets that a set is made from: what is recorded of them, and how their rows are read."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srood.errors import InputError
from srood.files import reserve
from srood.hdf5 import open_plain
from srood.manifest_fields import lacking
from srood.outlier_checks import REQUIRED
from srood.outliers import OutlierSet

BLOCK = 1024  # rows of images in memory at once
COLUMNS = (*REQUIRED, "energy", "id_ness", "cluster")  # as `curate build` orders them
NEEDED = (
    *("config.image_size", "contamination", "excluded_labels", "id_filter.embedder", "id_filter.recall", "label_names"),
    *("leak_certificate.largest_similarity_left", "leak_certificate.protected.name", "leak_certificate.protected.rows"),
    *("missing_sources", "recipe", "sources.name", "stages", "unread_sources", "versions"),
)
NEEDED_OF_BUILDS = (  # that it comes from
    *("config", "leak_certificate.protected.fingerprint", "leak_certificate.threshold.similarity"),
)


@dataclass(frozen=True)
class Parent:
    """An opened set, of which every shard was hashed."""

    opened: OutlierSet

    @property
    def name(self) -> str:
        """Its file name."""
        return self.opened.path.name

    @property
    def manifest(self) -> dict[str, Any]:
        """Its manifest."""
        return self.opened.manifest

    @property
    def shard_hashes(self) -> list[str]:
        """SHA-256 of each shard: the same for the same rows, whatever the files are called."""
        return [str(entry["sha256"]) for entry in self.manifest["shards"]]

    def provenance(self) -> dict[str, Any]:
        """What the manifest of a set made from this one says of it."""
        return {
            "file": self.name,
            "fingerprint": self.opened.fingerprint,
            "shards": self.shard_hashes,
            "manifest": self.manifest,
        }

    def column_names(self) -> list[str]:
        """The columns of its shards, in the order in which `curate build` writes them, for the sake of equal bytes."""
        with open_plain(self.opened.path.parent / self.manifest["shards"][0]["file"]) as file:
            return sorted(file, key=lambda name: (COLUMNS.index(name) if name in COLUMNS else len(COLUMNS), name))

    def columns(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Whole columns by name; `image` is not for reading whole."""
        return {name: self.opened.read(name) for name in names if name != "image"}

    def image_blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """All images in order, as (first row, (n, H, W, 3) uint8)."""
        first = 0
        for entry in self.manifest["shards"]:
            with open_plain(self.opened.path.parent / entry["file"]) as file:
                for start in range(0, entry["rows"], BLOCK):
                    yield first + start, file["image"][start : min(start + BLOCK, entry["rows"])]
            first += entry["rows"]


def open_parent(file: Path) -> Parent:
    """Open a set to make another from.

    Raises:
        InputError: it is no outlier set, was altered, holds no rows, or its manifest lacks what is to be passed on.
    """
    opened = OutlierSet.open(file)
    missing = lacking(opened.manifest, NEEDED)
    missing += [name for build in builds(opened.manifest) for name in lacking(build, NEEDED_OF_BUILDS)]
    if missing:
        raise InputError(f"{file}: its manifest has no {', '.join(missing)}; build the set with `curate build`")
    if not opened.num_rows:
        raise InputError(f"{file}: holds no rows; build it again with a larger corpus or weaker filters")
    return Parent(opened)


def check_apart(out: Path, parents: Sequence[Parent]) -> None:
    """Check that writing `out` leaves the files of all parents alone.

    Raises:
        InputError: `out` is one of them, or its shards would have the names of a parent's.
    """
    for parent in parents:
        check_leaves(out, [out.stem], parent.opened.path, parent.manifest)


def check_leaves(out: Path, stems: Collection[str], read: Path, manifest: Mapping[str, Any]) -> None:
    """Check that writing `out`, with shards named after `stems`, leaves the files of the set `read` alone.

    Raises:
        InputError: `out` is it, or shards would have the names of its shards.
    """
    beside = os.path.realpath(out.parent) == os.path.realpath(read.parent)
    if os.path.realpath(out) == os.path.realpath(read) or (beside and not shard_stems(manifest).isdisjoint(stems)):
        raise InputError(f"--out {out}: is a set that it is made from ({read}); name another file")


def shard_stems(manifest: Mapping[str, Any]) -> set[str]:
    """What the names of a set's shards begin with: the stem that its manifest had when it was written."""
    return {entry["file"].rpartition("-of-")[0].rpartition("-")[0] for entry in manifest["shards"]}


def gather_images(parents: Sequence[Parent], of: np.ndarray, row: np.ndarray, file: Path) -> np.ndarray:
    """Images in a new order, (n, H, W, 3) uint8, in a memory-mapped file which the kernel may page out.

    Args:
        of, row: int64 (n,), for each place the number of the parent and the row in it; no row twice.

    Raises:
        OSError: there is no space for the file.
    """
    shape = (len(row), *parents[0].opened.image_shape)
    reserve(file, int(np.prod(shape, dtype=np.int64)))
    gathered = np.memmap(file, np.uint8, "r+", shape=shape)
    for number, parent in enumerate(parents):
        place = np.full(parent.opened.num_rows, -1)
        mine = np.flatnonzero(of == number)
        place[row[mine]] = mine
        for first, images in parent.image_blocks():
            to = place[first : first + len(images)]
            gathered[to[to >= 0]] = images[to >= 0]
    return gathered


def builds(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The manifests of the builds that a set comes from: its own, or its parents' and theirs."""
    derived = manifest.get("derived")
    if not derived:
        yield manifest
        return
    for parent in derived["parents"]:
        yield from builds(parent["manifest"])
