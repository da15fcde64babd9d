"""SHA-256 of files and of pixels, by which everything here is known again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def pixel_sha256(image: np.ndarray) -> str:
    """SHA-256 (hex) of one image's pixels, (H, W, 3) uint8 in row-major order."""
    return hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()
