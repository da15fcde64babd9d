"""Opening HDF5 files of others: what leads out of the file is refused.

An external link, a virtual dataset or external storage would read another file's content, or zeros where it is missing.
"""

from __future__ import annotations

from pathlib import Path

import h5py

from srood.errors import InputError


def open_plain(path: Path, groups: bool = False) -> h5py.File:
    """Open an HDF5 file whose top level holds plain datasets only, or (`groups`) groups besides, which are not checked.

    Raises:
        InputError: it cannot be read as HDF5, or an entry is a link, a virtual dataset or stored in another file.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: cannot be read as HDF5 ({str(error).splitlines()[0]})") from error
    try:
        bad = next((name for name in file if not _is_plain(file, name, groups)), None)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
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
    return isinstance(entry, h5py.Dataset) and not entry.is_virtual and not entry.external
