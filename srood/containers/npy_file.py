"""NumPy files: uint8 (N, H, W, 3), (N, H, W, 1) or (N, H, W), memory-mapped, never unpickled."""

from __future__ import annotations

import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from srood.containers.container import Row, file_fingerprint, unreadable
from srood.errors import InputError
from srood.images import MAX_BYTES

# NumPy lets nearly anything of a header through
MISREAD = (SyntaxError, TypeError, ArithmeticError, RecursionError, tokenize.TokenError, LookupError, AssertionError)
DAMAGE = (OSError, ValueError, EOFError, MemoryError, *MISREAD)


@dataclass(frozen=True)
class NpyImages:
    """An array of images on disk; it has no labels."""

    path: Path
    count: int
    class_names: tuple[str, ...] = ()

    def num_rows(self) -> int:
        """Length of the array."""
        return self.count

    def rows(self, start: int = 0, max_bytes: int = MAX_BYTES) -> Iterator[Row]:
        """Images, copied out of the file one by one."""
        array = _mapped(self.path)
        for number in range(start, len(array)):
            yield Row(f"#{number}", np.array(array[number]), -1)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the file."""
        return file_fingerprint(self.path)


def open_npy(path: Path) -> NpyImages:
    """Read a NumPy file's header.

    Raises:
        InputError: it is damaged, holds Python objects, or is no array of images.
    """
    array = _mapped(path)
    good = array.dtype == np.uint8 and (array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (1, 3)))
    if not good or (array.ndim == 3 and array.shape[2] in (1, 3)):  # (H, W, 3) is one image, not N grey ones
        raise InputError(
            f"{path}: is {array.dtype} {array.shape}; images are uint8 (N, H, W, 3) or, grey, uint8 (N, H, W)"
        )
    if not array.size:
        raise InputError(f"{path}: holds no images ({array.shape})")
    if array[0].size > MAX_BYTES:
        raise InputError(f"{path}: one image has {array[0].size:,} bytes; at most {MAX_BYTES:,} are read")
    return NpyImages(path, len(array))


def _mapped(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGE as error:
        if any(words in str(error) for words in ("Object arrays", "allow_pickle", "memory-mapped: Python objects")):
            raise InputError(
                f"{path}: is no .npy array, or one of Python objects, which are not loaded; save uint8 (N, H, W, 3)"
            ) from error
        raise unreadable(path, error, "npy") from error
    if not isinstance(array, np.ndarray):  # an .npz in disguise
        array.close()
        raise InputError(f"{path}: is an archive of arrays (.npz); save one array with numpy.save")
    return array
