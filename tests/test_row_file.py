"""Rows in a file against the same rows in an array."""

from pathlib import Path

import numpy as np
import pytest

from curate import row_file
from curate.row_file import RowFile, compact


def test_rows_are_those_of_an_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_file, "_GAP", 40)
    monkeypatch.setattr(row_file, "_CHUNK", 600)
    rng = np.random.default_rng(0)
    array = rng.integers(0, 9, (200, 3, 2), np.int16)
    rows = RowFile(tmp_path / "rows.bin", (3, 2), np.int16)
    for start in range(0, 200, 30):
        rows.append(array[start : start + 30])
    assert rows.shape == array.shape and rows.ndim == 3 and len(rows) == 200 and rows.dtype == array.dtype
    some = rng.permutation(200)[:90]
    for key in (slice(None), slice(20, 31), slice(190, 500), slice(5, 3), slice(1, 90, 7), some, some[:0], some > 50):
        if isinstance(key, np.ndarray) and key.dtype == bool:
            key = np.resize(key, 200)
        np.testing.assert_array_equal(rows[key], array[key])
    np.testing.assert_array_equal(rows[-3], array[-3])
    np.testing.assert_array_equal(rows[np.array([4, 4, 2])], array[[4, 4, 2]])
    np.testing.assert_array_equal(np.asarray(rows), array)
    np.testing.assert_array_equal(rows.mapped(), array)
    with pytest.raises(IndexError, match="200"):
        rows[np.array([3, 200])]
    with pytest.raises(IndexError, match="200"):
        rows[200]


def test_rows_are_replaced_and_cut_off(tmp_path: Path) -> None:
    rows = RowFile(tmp_path / "rows.bin", (2,), np.float32)
    rows.append(np.arange(20).reshape(10, 2))
    rows.write(3, np.full((2, 2), -1))
    rows.truncate(6)
    assert rows[:].tolist() == [[0, 1], [2, 3], [4, 5], [-1, -1], [-1, -1], [10, 11]]
    again = RowFile(tmp_path / "rows.bin", (2,), np.float32, rows=6)
    np.testing.assert_array_equal(again[:], rows[:])
    with pytest.raises(OSError, match="ends before row 7"):
        RowFile(tmp_path / "rows.bin", (2,), np.float32, rows=7)[5:]


def test_compact_moves_rows_to_the_front(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((1_000, 3))
    keep = np.random.default_rng(1).random(1_000) < 0.4
    file = RowFile(tmp_path / "rows.bin", (3,), np.float64)
    file.append(array)
    file.truncate(compact(file, keep, block=64))
    np.testing.assert_array_equal(file[:], array[keep])
    assert compact(file, np.zeros(len(file), bool)) == 0
    rows = array.copy()
    np.testing.assert_array_equal(rows[: compact(rows, keep, block=64)], array[keep])
