"""Opening HDF5 files of others: what leads out of the file is refused.

An external link, a virtual dataset or external storage would read another file's content, or zeros where it is missing.
"""

from __future__ import annotations

import math
from pathlib import Path

import h5py

from srood.errors import InputError

FILTERS = frozenset((1, 2, 3, 4, 5, 6, 32000))  # HDF5's own and LZF; for others it would load a plugin


def open_plain(path: Path, groups: bool = False) -> h5py.File:
    """Open an HDF5 file whose top level holds plain datasets only, or (`groups`) groups besides, which are not checked.

    Raises:
        InputError: it cannot be read as HDF5, or an entry is a link, a virtual dataset, stored in another file, or
            filtered by what is no part of HDF5.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: cannot be read as HDF5 ({str(error).splitlines()[0]})") from error
    try:
        bad = next((name for name in file if not _is_plain(file, name, groups)), None)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        file.close()
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: is damaged HDF5 ({reason}); fetch it again") from error
    if bad is not None:
        file.close()
        raise InputError(f"{path}: '{bad}' is not a plain dataset; do not use this file")
    return file


def _is_plain(file: h5py.File, name: str, groups: bool) -> bool:
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return False
    entry = file[name]
    if isinstance(entry, h5py.Group):
        return groups
    if not isinstance(entry, h5py.Dataset) or entry.is_virtual or entry.external:
        return False
    plist = entry.id.get_create_plist()
    return all(plist.get_filter(number)[0] in FILTERS for number in range(plist.get_nfilters()))


def check_stored(entry: h5py.Dataset) -> None:
    """Check that a dataset is stored as it is read, every byte of it: no compression, no rows that were never written.

    Raises:
        ValueError: saying what it is instead.
    """
    if entry.dtype.kind not in "biufS" or entry.shape is None:
        raise ValueError(f"is of type {entry.dtype}")
    if entry.id.get_create_plist().get_nfilters():
        raise ValueError("is compressed or otherwise filtered, which an outlier set is not")
    size = math.prod(entry.shape) * entry.dtype.itemsize
    if entry.id.get_storage_size() < size or Path(entry.file.filename).stat().st_size < size:
        raise ValueError(f"claims {size:,} bytes, more than are stored")
