"""A folder: image files, labelled by their first subfolder; or, where it holds none, Parquet files or tar shards."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from srood.containers import parquet_file, tar_file
from srood.containers.container import IMAGE_SUFFIXES, Container, Row, printable
from srood.errors import InputError
from srood.images import MAX_BYTES, Unusable


@dataclass(frozen=True)
class Folder:
    """Image files below `root`, sorted by path."""

    root: Path
    files: tuple[Path, ...]
    class_names: tuple[str, ...]

    def num_rows(self) -> int:
        """Image files."""
        return len(self.files)

    def rows(self, start: int = 0, max_bytes: int = MAX_BYTES) -> Iterator[Row]:
        """Files, to be read when they are decoded."""
        index = {name: number for number, name in enumerate(self.class_names)}
        for path in self.files[start:]:
            parts = path.relative_to(self.root).parts
            label = index[printable(parts[0])] if len(parts) > 1 else -1
            data = Unusable("link out of the folder") if leads_out(path, self.root) else path
            yield Row(f"/{printable('/'.join(parts))}", data, label)

    def fingerprint(self) -> str:
        """SHA-256 (hex) over names and sizes; reading a million small files would take minutes."""
        digest = hashlib.sha256()
        for path in self.files:
            name = printable(path.relative_to(self.root).as_posix())
            size = path.stat().st_size if not leads_out(path, self.root) and path.exists() else -1
            digest.update(f"{name}\0{size}\n".encode())
        return digest.hexdigest()


def open_folder(root: Path) -> Container:
    """List a folder; hidden subfolders, and links to folders, are left out.

    Nothing outside the folder is read: an image that is a link out of it is a row that cannot be used.

    Raises:
        InputError: it holds no images, Parquet or tar files, or one of the latter is a link out of it.
    """
    files: list[Path] = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files += [Path(folder, name) for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        if tables := _within(root, "*.parquet"):
            return parquet_file.open_parquet_files(tables)
        if shards := _within(root, "*.tar"):
            return tar_file.open_tars(shards)
        raise InputError(
            f"{root}: the folder holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}) and no .parquet or .tar files"
        )
    files.sort(key=lambda path: path.relative_to(root).as_posix())
    parts = (path.relative_to(root).parts for path in files)
    return Folder(root, tuple(files), tuple(sorted({printable(p[0]) for p in parts if len(p) > 1})))


def leads_out(path: Path, root: Path) -> bool:
    """Whether a file below `root` is a link to something that is not, there or not."""
    return path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _within(root: Path, pattern: str) -> list[Path]:
    found = sorted(root.glob(pattern))
    for path in found:
        if leads_out(path, root):
            raise InputError(f"{path}: is a link out of the folder, which is not followed; name the file that it is")
    return [path for path in found if path.is_file()]
