"""80 Million Tiny Images' ``tiny_images.bin``: records of 3,072 bytes, no header.

A record is a MATLAB array of 32 x 32 x 3, so column-major: byte ``row + 32 * column + 1024 * channel`` (Torralba,
Fergus and Freeman, 2008; ``loadTinyImages.m``). Any file of such records may be read, such as a part of the set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from srood.containers.container import Row, file_fingerprint, unreadable
from srood.errors import InputError
from srood.images import MAX_BYTES

RECORD = 3 * 32 * 32
BLOCK = 1024  # records read at a time


@dataclass(frozen=True)
class TinyImages:
    """Records in the order of the file; they have no labels."""

    path: Path
    count: int
    class_names: tuple[str, ...] = ()

    def num_rows(self) -> int:
        """Records."""
        return self.count

    def rows(self, start: int = 0, max_bytes: int = MAX_BYTES) -> Iterator[Row]:
        """(32, 32, 3) images from record `start` on, counted from 0."""
        try:
            with open(self.path, "rb") as file:
                file.seek(start * RECORD)
                number = start
                while block := file.read(BLOCK * RECORD):
                    if len(block) % RECORD:
                        raise InputError(f"{self.path}: was cut short while it was read; fetch it again")
                    for image in decode_records(block):
                        yield Row(f"#{number}", image, -1)
                        number += 1
        except OSError as error:
            raise unreadable(self.path, error) from error

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the file, of the full set (227 GiB) of a sample of it."""
        return file_fingerprint(self.path)


def decode_records(block: bytes) -> np.ndarray:
    """Records as (N, 32, 32, 3) uint8 images: from (channel, column, row) to (row, column, channel)."""
    records = np.frombuffer(block, np.uint8).reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(records.transpose(0, 3, 2, 1))


def open_tiny_images(path: Path) -> TinyImages:
    """Count the records of a file.

    Raises:
        InputError: it is empty, or its size is no multiple of 3,072 bytes.
    """
    size = path.stat().st_size
    if not size or size % RECORD:
        raise InputError(
            f"{path}: has {size:,} bytes, no multiple of {RECORD:,}; .bin files are read as tiny_images.bin only"
        )
    return TinyImages(path, size // RECORD)
