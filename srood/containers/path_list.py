"""A list of image files: one path a line, relative to the list, and after a tab optionally a label."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from srood.containers.container import Row, unreadable
from srood.errors import InputError
from srood.images import MAX_BYTES
from srood.labels import number_labels


@dataclass(frozen=True)
class PathList:
    """Paths as they were written, in the order of the list."""

    path: Path
    written: tuple[str, ...]
    labels: np.ndarray  # (N,) int64
    class_names: tuple[str, ...]

    def num_rows(self) -> int:
        """Paths, whether there is such a file or not."""
        return len(self.written)

    def rows(self, start: int = 0, max_bytes: int = MAX_BYTES) -> Iterator[Row]:
        """Files, to be read when they are decoded; an absolute path does not show in the key."""
        folder = self.path.parent
        for number in range(start, len(self.written)):
            written = self.written[number]
            key = f"#{number}" if Path(written).is_absolute() else f"/{written}"
            yield Row(key, folder / written, int(self.labels[number]))

    def fingerprint(self) -> str:
        """SHA-256 (hex) over paths (absolute ones by their file names), labels and sizes of the files."""
        digest = hashlib.sha256("\n".join(self.class_names).encode())
        for written, label in zip(self.written, self.labels.tolist(), strict=True):
            path = self.path.parent / written
            size = os.path.getsize(path) if os.path.isfile(path) else -1
            name = path.name if Path(written).is_absolute() else written
            digest.update(f"{name}\0{label}\0{size}\n".encode())
        return digest.hexdigest()


def open_path_list(path: Path) -> PathList:
    """Read a list of paths; empty lines are passed over.

    Raises:
        InputError: it is no UTF-8 text, lists nothing, or none of the files is there.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error, "a list of paths in UTF-8") from error
    if "\0" in text:
        raise InputError(f"{path}: is no text; a list holds one path a line")
    lines = [line.rstrip("\r").partition("\t") for line in text.split("\n") if line.strip()]
    if not lines:
        raise InputError(f"{path}: lists no path; write one a line")
    written = tuple(name.strip() for name, _, _ in lines)
    if not any(os.path.isfile(path.parent / name) for name in written):  # False too of a "path" too long to be one
        raise InputError(f"{path}: none of its {len(lines)} lines is a file; paths are relative to {path.name} itself")
    labels, class_names = number_labels([label.strip() or None for _, _, label in lines])
    return PathList(path, written, labels, class_names)
