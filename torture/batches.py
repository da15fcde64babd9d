"""Batches of an outlier set for PyTorch's loader, as a program of a user might read them."""

from __future__ import annotations

import numpy as np

from srood.outlier_blocks import BlockReader
from srood.outliers import OutlierSet

STEPS, BATCH = 6, 50


class Batches:
    """A data set for PyTorch's loader: a batch read in blocks, and the same number of single rows, of each step."""

    def __init__(self, path: str) -> None:
        self.opened = OutlierSet.open(path)
        self.reader = BlockReader(self.opened, 128, 0, block_rows=32)

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, step: int) -> np.ndarray:
        single = self.opened.read_images(np.arange(BATCH) * 7 % self.opened.num_rows)
        return np.concatenate([self.reader.rows(step, BATCH), single])
