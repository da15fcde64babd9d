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


@dataclass(frozen=True)
class Folder:
    """Image files below `root`, sorted by path."""

    root: Path
    files: tuple[Path, ...]
    class_names: tuple[str, ...]

    def num_rows(self) -> int:
        """Image files."""
        return len(self.files)

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Files, to be read when they are decoded."""
        index = {name: number for number, name in enumerate(self.class_names)}
        for path in self.files[start:]:
            parts = path.relative_to(self.root).parts
            label = index[printable(parts[0])] if len(parts) > 1 else -1
            yield Row(f"/{printable('/'.join(parts))}", path, label)

    def fingerprint(self) -> str:
        """SHA-256 (hex) over names and sizes; reading a million small files would take minutes."""
        digest = hashlib.sha256()
        for path in self.files:
            name = printable(path.relative_to(self.root).as_posix())
            digest.update(f"{name}\0{path.stat().st_size if path.exists() else -1}\n".encode())
        return digest.hexdigest()


def open_folder(root: Path) -> Container:
    """List a folder; hidden subfolders are left out.

    Raises:
        InputError: it holds no images, Parquet or tar files.
    """
    files: list[Path] = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        files += [Path(folder, name) for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        if tables := sorted(root.glob("*.parquet")):
            return parquet_file.open_parquet_files(tables)
        if shards := sorted(root.glob("*.tar")):
            return tar_file.open_tars(shards)
        raise InputError(
            f"{root}: the folder holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}) and no .parquet or .tar files"
        )
    files.sort(key=lambda path: path.relative_to(root).as_posix())
    parts = (path.relative_to(root).parts for path in files)
    return Folder(root, tuple(files), tuple(sorted({printable(p[0]) for p in parts if len(p) > 1})))
