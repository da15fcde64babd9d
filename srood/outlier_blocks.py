"""Random batches of an outlier set that does not fit in memory, read from its shards in shuffled blocks.

Single rows at random places cost a read each. Here runs of consecutive rows are read whole, several at random form a
window in memory, and batches are drawn from the window while a thread reads the next. `srood.shuffle_quality` says how
far that is from a full shuffle. A set that fits is better held whole (`OutlierSet.read_images`). A set whose rows are
wanted in the stored order is read in the same way, without the shuffles.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any

import numpy as np

from srood.block_order import BlockOrder, Window
from srood.errors import InputError
from srood.hdf5 import open_plain
from srood.outliers import CHUNK_ROWS, OutlierSet

BLOCK_ROWS = 1024
BLOCK_BYTES = 4 << 20  # of pixels: a disk is then reading rather than seeking


def default_block_rows(opened: OutlierSet) -> int:
    """Rows of a block: 1,024, or as many whole chunks as have 4 MiB of pixels, at least one."""
    chunks = BLOCK_BYTES // int(np.prod(opened.image_shape)) // CHUNK_ROWS
    return min(BLOCK_ROWS, max(1, chunks) * CHUNK_ROWS)


def block_order(
    opened: OutlierSet,
    window_rows: int,
    seed: int,
    block_rows: int | None = None,
    left_out: tuple[int, ...] = (),
    shuffled: bool = True,
) -> BlockOrder:
    """The order that `BlockReader` reads a set in, of the same arguments.

    Raises:
        InputError: the set holds no rows.
        ValueError: a size below 1, or a block larger than the window.
    """
    block = min(default_block_rows(opened), window_rows) if block_rows is None else block_rows
    if not 1 <= block <= window_rows:
        raise ValueError(f"window_rows {window_rows}, block_rows {block}: give 1 <= block_rows <= window_rows")
    if opened.num_rows == 0:
        raise InputError(f"{opened.path}: holds no rows; build it again with a larger corpus or weaker filters")
    shard_rows = tuple(int(entry["rows"]) for entry in opened.manifest["shards"])
    return BlockOrder(shard_rows, block, window_rows // block, seed, left_out, shuffled)


class BlockReader:
    """An endless stream of random batches, all rows once before any again; which rows is a function of seed and step.

    Steps may be asked for in any order and give the same rows, so that a run can go on at any step. It is fast where
    they are asked for in turn. Use it in one thread, and close it, or use it in a ``with``. It may be given to another
    process, forked or spawned, and read in both: each then has a thread and windows of its own.

    Attributes:
        order: which rows make up a step
    """

    def __init__(
        self,
        opened: OutlierSet,
        window_rows: int,
        seed: int,
        block_rows: int | None = None,
        left_out: tuple[int, ...] = (),
        shuffled: bool = True,
    ) -> None:
        """Nothing is read before the first batch.

        Args:
            opened: the set.
            window_rows: rows to draw from at the most. Two windows are held, 2 * window_rows * H * W * 3 bytes. It
                decides which rows make up a step, as do `seed` and `block_rows`.
            seed: of the order, from 0.
            block_rows: consecutive rows that are read together; by default `default_block_rows`, or `window_rows`
                where that is less.
            left_out: numbers of blocks that are never drawn.
            shuffled: False for the stored order, in which `seed` plays no part.

        Raises:
            InputError: the set holds no rows.
            ValueError: a size below 1, or a block larger than the window.
        """
        self.order = block_order(opened, window_rows, seed, block_rows, left_out, shuffled)
        self._opened = opened
        self._held: tuple[tuple[int, int], np.ndarray] | None = None
        self._start_thread()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_held": None, "_ahead": None, "_thread": None, "_process": None}

    def _start_thread(self) -> None:
        self._process: int | None = os.getpid()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="srood-blocks")
        self._ahead: tuple[tuple[int, int], Future[np.ndarray]] | None = None

    def rows(self, step: int, batch_size: int) -> np.ndarray:
        """The images of a step's batch, (batch_size, H, W, 3) uint8, a copy; their numbers are `order.row_numbers`.

        Raises:
            InputError: a shard is missing or cannot be read, here or in the thread.
        """
        return self.between(step * batch_size, (step + 1) * batch_size)

    def between(self, start: int, stop: int) -> np.ndarray:
        """The images from place `start` of the stream to `stop`, (stop - start, H, W, 3) uint8, a copy.

        Raises:
            InputError: as `rows`.
        """
        batch = np.empty((stop - start, *self._opened.image_shape), np.uint8)
        done = 0
        for window, places in self.order.pieces(start, stop):
            part = batch[done : done + len(places)]
            # mode: the places are in range, and with "raise" NumPy fills a copy of `out` first
            np.take(self._pixels(window), places, axis=0, out=part, mode="clip")
            done += len(places)
        return batch

    def close(self) -> None:
        """End the thread and let go of the windows."""
        if self._process == os.getpid():
            self._thread.shutdown(cancel_futures=True)
        self._held = self._ahead = None

    def __enter__(self) -> BlockReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _pixels(self, window: Window) -> np.ndarray:
        if self._process != os.getpid():  # the thread stayed behind, and nobody reads what it was asked for
            self._start_thread()
        if self._held is None or self._held[0] != window.key:
            self._held = None  # before another is read: never more than two
            ahead, self._ahead = self._ahead, None
            if ahead is not None and ahead[0] != window.key:
                # a jump; an error in reading what is not wanted now comes again when it is
                ahead[1].cancel()
                wait([ahead[1]])
                ahead = None
            future = self._thread.submit(self._read, window) if ahead is None else ahead[1]
            self._held = window.key, future.result()
            following = self.order.following(window)
            self._ahead = following.key, self._thread.submit(self._read, following)
        return self._held[1]

    def _read(self, window: Window) -> np.ndarray:
        return read_blocks(self._opened, self.order.blocks[window.blocks])


def read_blocks(opened: OutlierSet, blocks: np.ndarray) -> np.ndarray:
    """The pixels of blocks in the order given, (rows, H, W, 3) uint8; each shard is opened once and read forwards.

    Args:
        opened: the set
        blocks: shard, first row in it, rows, and first row in the set of each, (k, 4) int64, as `BlockOrder.blocks`

    Raises:
        InputError: a shard is missing or cannot be read.
    """
    shape = opened.image_shape
    pixels = np.empty((int(blocks[:, 2].sum()), *shape), np.uint8)
    places = np.cumsum(blocks[:, 2]) - blocks[:, 2]
    for shard in np.unique(blocks[:, 0]):
        entry = opened.manifest["shards"][shard]
        path = opened.path.parent / entry["file"]
        inside = np.flatnonzero(blocks[:, 0] == shard)
        with open_plain(path) as file:
            images = file.get("image")
            if images is None or images.shape != (entry["rows"], *shape) or images.dtype != np.uint8:
                raise InputError(f"{path}: its images are not those of the manifest; restore the file")
            try:
                for number in inside[np.argsort(blocks[inside, 1])]:
                    (_, first, rows, _), place = blocks[number], places[number]
                    images.read_direct(pixels, np.s_[first : first + rows], np.s_[place : place + rows])
            except OSError as error:
                reason = str(error).splitlines()[0]
                raise InputError(f"{path}: cannot be read ({reason}); restore the file") from error
    return pixels
