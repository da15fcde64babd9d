"""HDF5 files of images: an outlier set (manifest or shard), or any file with a uint8 (N, H, W, 3) dataset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from srood import outliers
from srood.containers.container import Row, file_fingerprint, unreadable
from srood.errors import InputError
from srood.hdf5 import open_plain
from srood.images import MAX_BYTES
from srood.labels import whole_label

IMAGE_NAMES = ("image", "images", "img", "data", "x")
LABEL_NAMES = ("label", "labels", "y", "class")
BLOCK_BYTES = 32 << 20  # of images read at a time
INFLATION = 1100  # times that DEFLATE makes of its input at the most
MAX_CHUNK = 512 << 20  # bytes that HDF5 must decompress to read one row


@dataclass(frozen=True)
class Hdf5Images:
    """One dataset of images and, where there is one, of labels."""

    path: Path
    image: str
    label: str | None
    count: int
    class_names: tuple[str, ...] = ()

    def num_rows(self) -> int:
        """Length of the dataset."""
        return self.count

    def rows(self, start: int = 0, max_bytes: int = MAX_BYTES) -> Iterator[Row]:
        """Images, read by blocks of rows."""
        with open_plain(self.path, groups=True) as file:
            images = file[self.image]
            step = max(1, min(1024, BLOCK_BYTES // max(1, int(np.prod(images.shape[1:])))))
            for first in range(start, self.count, step):
                rows = slice(first, min(first + step, self.count))
                try:
                    block = images[rows]
                    labels = file[self.label][rows].reshape(len(block)) if self.label else np.full(len(block), -1)
                except (OSError, RuntimeError) as error:
                    raise unreadable(self.path, error, "HDF5") from error
                for offset, (image, label) in enumerate(zip(block, labels.tolist(), strict=True)):
                    yield Row(f"#{first + offset}", image, whole_label(label, f"{self.path}: '{self.label}'"))

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the file."""
        return file_fingerprint(self.path)


@dataclass(frozen=True)
class OutlierImages:
    """The rows of an outlier set, verified when it was opened."""

    opened: outliers.OutlierSet

    @property
    def class_names(self) -> tuple[str, ...]:
        """Labels of the corpus that the set was made from."""
        return tuple(str(name) for name in self.opened.manifest.get("label_names") or ())

    @property
    def license(self) -> str:
        """Licences of the sources that the set was made from."""
        licences = {str(entry.get("license") or "unknown") for entry in self.opened.manifest.get("sources") or ()}
        return "; ".join(sorted(licences)) or "unknown"

    def num_rows(self) -> int:
        """Rows of all shards."""
        return self.opened.num_rows

    def rows(self, start: int = 0, max_bytes: int = MAX_BYTES) -> Iterator[Row]:
        """Images and corpus labels, by blocks of rows."""
        step = max(1, min(1024, BLOCK_BYTES // int(np.prod(self.opened.image_shape))))
        for first in range(start, self.num_rows(), step):
            numbers = np.arange(first, min(first + step, self.num_rows()))
            labels = self.opened.read("label", numbers).tolist()
            for number, image, label in zip(numbers, self.opened.read_images(numbers), labels, strict=True):
                yield Row(f"#{number}", image, label)

    def fingerprint(self) -> str:
        """The set's own."""
        return self.opened.fingerprint


def open_hdf5_images(path: Path) -> Hdf5Images | OutlierImages:
    """Open an HDF5 file of images.

    Raises:
        InputError: it is damaged, leads out of itself (see `srood.hdf5`), or holds no dataset of images, or several.
    """
    with open_plain(path, groups=True) as file:
        shapes = {name: entry.shape for name, entry in file.items() if isinstance(entry, h5py.Dataset)}
        if shapes.get("manifest") == ():
            return OutlierImages(outliers.OutlierSet.open(path))
        found = [name for name in shapes if _holds_images(file[name])]
        by_name = [name for known in IMAGE_NAMES for name in found if name.lower() == known]
        if not found:
            has = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "none"
            raise InputError(f"{path}: has no dataset of images, uint8 (N, H, W, 3), at its top level; it has {has}")
        if len(found) > 1 and not by_name:
            raise InputError(f"{path}: holds images in {', '.join(found)}; name the one to read 'image'")
        image = (by_name or found)[0]
        count = len(file[image])
        row_bytes = int(np.prod(shapes[image][1:]))
        chunk = int(np.prod(file[image].chunks or (1,)))
        if row_bytes > MAX_BYTES or chunk > MAX_CHUNK:
            most = max(row_bytes, chunk)
            raise InputError(f"{path}: '{image}' has {most:,} bytes a row or chunk; write smaller chunks")
        if not file[image].id.get_storage_size():  # reads as zeros, as many as it claims
            raise InputError(f"{path}: nothing was written to '{image}'; write the images, or fetch it again")
        if file[image].size > INFLATION * file[image].id.get_storage_size():
            raise InputError(f"{path}: '{image}' claims more rows than were written; fetch it again")
        candidates = [name for known in LABEL_NAMES for name in shapes if name.lower() == known]
        label = next((n for n in candidates if _holds_labels(file[n], count)), None)
    return Hdf5Images(path, image, label, count)


def _holds_images(entry: h5py.Dataset) -> bool:
    return _kind(entry) == "u1" and len(entry.shape) == 4 and entry.shape[3] == 3 and entry.size > 0


def _holds_labels(entry: h5py.Dataset, count: int) -> bool:
    chunk = 8 * int(np.prod(entry.chunks or (1,)))
    return _kind(entry)[0] in "iufb" and entry.shape in ((count,), (count, 1)) and chunk <= MAX_CHUNK


def _kind(entry: h5py.Dataset) -> str:
    try:
        return entry.dtype.str[1:]
    except (TypeError, ValueError):  # of a type that NumPy does not have
        return "?"
