"""Rows of one shape in a file, read and written without mapping it: what is not looked at takes no memory."""

from __future__ import annotations

import os
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np

_GAP = 1 << 14  # bytes; rows that are no further apart are read in one go
_CHUNK = 1 << 22  # bytes of the file that are read in one go, at most


class RowFile:
    """An array (N, ...) in a file. Its slices and rows are read as arrays; `append` and `write` change the file.

    A memory-mapped file would count as memory of the process as far as it was touched.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: Any, rows: int = 0) -> None:
        """Open a file with `rows` rows of `shape` each, or make it."""
        self.path = path
        self.dtype = np.dtype(dtype)
        self._row = tuple(shape)
        self._bytes = int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize
        self._rows = rows
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | (0 if rows else os.O_TRUNC))

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""
        return (self._rows, *self._row)

    @property
    def ndim(self) -> int:
        """As of an array."""
        return len(self.shape)

    def __len__(self) -> int:
        return self._rows

    def append(self, values: np.ndarray) -> None:
        """Add rows at the end."""
        self.write(self._rows, values)

    def write(self, start: int, values: np.ndarray) -> None:
        """Put rows in place, from row `start` on; the file grows where they reach beyond its end."""
        data = np.ascontiguousarray(values, self.dtype).reshape(-1).view(np.uint8).data
        offset, written = start * self._bytes, 0
        while written < len(data):
            written += os.pwrite(self._file, data[written:], offset + written)
        self._rows = max(self._rows, start + len(values))

    def __setitem__(self, key: slice, values: np.ndarray) -> None:
        start, stop, step = key.indices(max(self._rows, key.stop or 0))
        if step != 1 or stop - start != len(values):
            raise ValueError(f"{len(values)} rows do not fit {key}")
        self.write(start, values)

    def truncate(self, rows: int) -> None:
        """Keep the first rows only."""
        os.ftruncate(self._file, rows * self._bytes)
        self._rows = rows

    def __getitem__(self, key: Any) -> np.ndarray:
        """A row by its number, a slice of step 1, or the rows of an array of numbers or of bool, as an array."""
        if isinstance(key, int | np.integer):
            number = int(key) + (self._rows if key < 0 else 0)
            if not 0 <= number < self._rows:
                raise IndexError(f"row {key} of {self._rows}")
            return self._read(number, 1)[0]
        if isinstance(key, slice):
            start, stop, step = key.indices(self._rows)
            if step == 1:
                return self._read(start, max(0, stop - start))
            return self[np.arange(start, stop, step)]
        if isinstance(key, EllipsisType):
            return self._read(0, self._rows)
        rows = np.asarray(key)
        return self._gather(np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def _read(self, start: int, count: int) -> np.ndarray:
        out = np.empty((count, *self._row), self.dtype)
        view, offset, got = out.reshape(-1).view(np.uint8).data, start * self._bytes, 0
        while got < len(view):
            more = os.preadv(self._file, [view[got:]], offset + got)
            if more == 0:
                raise OSError(f"{self.path}: ends before row {start + count}")
            got += more
        return out

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        """Rows in any order: read in that of the file, near ones together."""
        out = np.empty((len(rows), *self._row), self.dtype)
        if not len(rows):
            return out
        if rows.min() < 0 or rows.max() >= self._rows:
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {self._rows}")
        order = np.argsort(rows, kind="stable")
        inorder = rows[order]
        apart = np.diff(inorder) > 1 + _GAP // max(1, self._bytes)
        apart |= np.diff(inorder // max(1, _CHUNK // max(1, self._bytes))) > 0
        ends = [*(np.flatnonzero(apart) + 1).tolist(), len(rows)]
        start = 0
        for end in ends:
            first = int(inorder[start])
            read = self._read(first, int(inorder[end - 1]) - first + 1)
            out[order[start:end]] = read[inorder[start:end] - first]
            start = end
        return out

    def mapped(self) -> np.ndarray:
        """The whole of it, memory-mapped, read only."""
        if not self._rows:
            return np.empty(self.shape, self.dtype)
        return np.memmap(self.path, self.dtype, "r", shape=self.shape)

    def close(self) -> None:
        """Close the file, which stays."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.close()


def compact(rows: Any, keep: np.ndarray, block: int = 65536) -> int:
    """Move the rows to keep (bool) to the front of a file or an array, some at a time; return how many they are."""
    end = 0
    for start in range(0, len(rows), block):
        chosen = rows[start : start + block][keep[start : start + block]]
        rows[end : end + len(chosen)] = chosen
        end += len(chosen)
    return end
