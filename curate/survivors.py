"""Rows that a build has not dropped yet: numbers in memory, and images, embeddings and descriptors in files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from curate.digests import raw
from curate.evidence import Batch
from curate.fingerprints import DIMENSIONS
from curate.partitions import packed
from curate.row_file import RowFile, compact

_BLOCK = 1 << 14  # rows moved at once


@dataclass
class Survivors:
    """What batches left behind, in the order of the corpus; files lie in `folder`.

    `columns` (N,) hold one entry a row once `join` was called; `image` (N, H, W, 3) uint8, `embedding` (N, D) float16
    and `descriptor` (N, 144) int16 (`packed`) are files. Leaks stand apart: their near-duplicates go too.
    """

    folder: Path
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    _parts: list[dict[str, np.ndarray]] = field(default_factory=list)
    _files: dict[str, RowFile] = field(default_factory=dict)

    @property
    def started(self) -> bool:
        """Whether there was a batch at all."""
        return bool(self._files)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def image(self) -> RowFile:
        """Pixels."""
        return self._files["image"]

    @property
    def embedding(self) -> RowFile:
        """What the embedder gave."""
        return self._files["embedding"]

    @property
    def descriptor(self) -> RowFile:
        """Copy descriptors."""
        return self._files["descriptor"]

    def take(self, part: dict[str, np.ndarray]) -> None:
        """Add what a batch left behind, as `settle_batch` gives it, but for its tally, evidence and digests."""
        if not self._files:
            for name, values in (("image", part["image"]), ("embedding", part["embedding"])):
                self._files[name] = RowFile(self.folder / f"{name}s.bin", values.shape[1:], values.dtype)
            self._files["descriptor"] = RowFile(self.folder / "descriptors.bin", (DIMENSIONS,), np.int16)
            for name in ("image", "descriptor"):
                like = self._files[name]
                self._files[f"leaked_{name}"] = RowFile(self.folder / f"leaked-{name}s.bin", like.shape[1:], like.dtype)
        for name in ("descriptor", "leaked_descriptor"):
            part[name] = packed(part[name])
        for name, file in self._files.items():
            file.append(part.pop(name))
        part["sha256"] = raw(part["sha256"])
        self._parts.append(part)

    def join(self) -> None:
        """Make columns of the batches' arrays, one after the other: no two are in memory twice at the same time."""
        for name in list(self._parts[0]):
            self.columns[name] = np.concatenate([part.pop(name) for part in self._parts])
        self._parts.clear()

    def keep(self, which: np.ndarray) -> None:
        """Keep the rows that are `which` (bool), in their order."""
        if which.all():
            return
        for name, values in self.columns.items():
            self.columns[name] = values[which]
        for name in ("image", "embedding", "descriptor"):
            file = self._files[name]
            file.truncate(compact(file, which, _BLOCK))

    def batch(self) -> Batch:
        """The rows with their keys, to be shown."""
        return Batch.of_columns({**self.columns, "image": self.image})

    def with_leaks(self) -> tuple[RowFile, RowFile]:
        """Images and descriptors of all rows, followed by those of the leaks."""
        for name in ("image", "descriptor"):
            leaks = self._files[f"leaked_{name}"]
            for start in range(0, len(leaks), _BLOCK):
                self._files[name].append(leaks[start : start + _BLOCK])
        return self.image, self.descriptor
