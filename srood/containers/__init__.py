"""Files that hold images, one format a module, each with the same few verbs (see `container.Container`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from srood.containers import folder, hdf5_file, npy_file, parquet_file, path_list, tar_file, tiny_images, zip_file
from srood.containers.container import Container, Row
from srood.errors import InputError

FORMATS: dict[str, Callable[[Path], Container]] = {
    ".parquet": parquet_file.open_parquet_file,
    ".zip": zip_file.open_zip,
    ".tar": tar_file.open_tar,
    ".h5": hdf5_file.open_hdf5_images,
    ".hdf5": hdf5_file.open_hdf5_images,
    ".npy": npy_file.open_npy,
    ".bin": tiny_images.open_tiny_images,
    ".txt": path_list.open_path_list,
}
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

__all__ = ["FORMATS", "Container", "Row", "open_container"]


def open_container(path: Path) -> Container:
    """Open a folder or a file by its suffix; of the images nothing is read but where they are and their labels.

    Raises:
        InputError: a format that is not read, a damaged file, or one that holds no images.
    """
    if path.is_dir():
        return folder.open_folder(path)
    name = path.name.lower()
    if name.endswith(COMPRESSED):
        raise InputError(f"{path}: compressed tar cannot be read from the middle; decompress it to .tar")
    opener = FORMATS.get(Path(name).suffix)
    if opener is None or not path.is_file():
        raise InputError(f"{path}: is no format that is read; give a folder or {', '.join(FORMATS)}")
    return opener(path)
