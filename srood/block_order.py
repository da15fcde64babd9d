"""The order in which rows are drawn from a set that is read in shuffled blocks: a function of seed and step alone.

A block is a run of consecutive rows of one shard. In each pass the blocks are shuffled and taken in windows of several;
the rows of a window are shuffled among each other. The same blocks can be drawn in the stored order instead. Nothing
here has state or reads a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

BLOCKS, ROWS = 0xB1, 0xB2  # what random numbers are drawn for


@dataclass(frozen=True)
class Window:
    """Blocks that are held at the same time.

    Attributes:
        cycle: number of the pass over the set
        number: of the window in its pass
        blocks: numbers of its blocks in the set, in the order in which they are held, (k,) int64
        first: rows drawn in the pass before it
        rows: rows of its blocks
    """

    cycle: int
    number: int
    blocks: np.ndarray
    first: int
    rows: int

    @property
    def key(self) -> tuple[int, int]:
        """What tells it from all others of the order."""
        return self.cycle, self.number


@dataclass(frozen=True)
class BlockOrder:
    """An endless stream of the rows of a set: all are drawn once before any is drawn again.

    Attributes:
        shard_rows: rows of each shard
        block_rows: rows of a block; the last of a shard may have fewer
        window_blocks: blocks of a window at the most; the windows of a pass have as many each, or one fewer
        seed: a number from 0
        left_out: numbers of blocks that are never drawn; the other blocks are numbered anew
        shuffled: False for the stored order, again and again
    """

    shard_rows: tuple[int, ...]
    block_rows: int
    window_blocks: int
    seed: int
    left_out: tuple[int, ...] = ()
    shuffled: bool = True

    @cached_property
    def rows(self) -> int:
        """Rows of a pass."""
        return int(self.blocks[:, 2].sum())

    @cached_property
    def blocks(self) -> np.ndarray:
        """Shard, first row in the shard, rows, and first row in the set of each block, (B, 4) int64."""
        before = np.cumsum([0, *self.shard_rows])
        found = [
            (shard, first, min(self.block_rows, rows - first), before[shard] + first)
            for shard, rows in enumerate(self.shard_rows)
            for first in range(0, rows, self.block_rows)
        ]
        return np.delete(np.array(found, np.int64).reshape(-1, 4), list(self.left_out), axis=0)

    @property
    def windows(self) -> int:
        """Windows of a pass."""
        return -(-len(self.blocks) // self.window_blocks)

    def window(self, cycle: int, number: int) -> Window:
        """A window by its pass and its number in it."""
        shuffled, ends, firsts = _pass(self, cycle)
        blocks = shuffled[ends[number] : ends[number + 1]]
        return Window(cycle, number, blocks, int(firsts[number]), int(firsts[number + 1] - firsts[number]))

    def following(self, window: Window) -> Window:
        """The window after another; the first of the next pass after the last."""
        cycle, number = divmod(window.cycle * self.windows + window.number + 1, self.windows)
        return self.window(cycle, number)

    def pieces(self, start: int, stop: int) -> Iterator[tuple[Window, np.ndarray]]:
        """What is drawn from place `start` of the stream to `stop`: windows, and places in them, (n,) int64."""
        while start < stop:
            cycle, position = divmod(start, self.rows)
            number = int(np.searchsorted(_pass(self, cycle)[2], position, side="right")) - 1
            window = self.window(cycle, number)
            offset = position - window.first
            count = min(stop - start, window.rows - offset)
            if self.shuffled:
                places = _shuffled(window.rows, self.seed, ROWS, cycle, number)[offset : offset + count]
            else:
                places = np.arange(offset, offset + count)
            yield window, places
            start += count

    def row_numbers(self, step: int, batch_size: int) -> np.ndarray:
        """Rows of the set that make up a step's batch, (batch_size,) int64, in the order drawn."""
        return self.rows_between(step * batch_size, (step + 1) * batch_size)

    def rows_between(self, start: int, stop: int) -> np.ndarray:
        """Rows of the set from place `start` of the stream to `stop`, (stop - start,) int64, in the order drawn."""
        found = [np.empty(0, np.int64)]
        for window, places in self.pieces(start, stop):
            rows, first = self.blocks[window.blocks, 2:].T
            ends = np.cumsum(rows)
            block = np.searchsorted(ends, places, side="right")
            found.append(first[block] + places - (ends - rows)[block])
        return np.concatenate(found)


@lru_cache(maxsize=8)  # a few sets are read in turn
def _pass(order: BlockOrder, cycle: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Blocks of a pass in order, (B,); where windows begin among them and among the rows drawn, (W + 1,) each."""
    count = len(order.blocks)
    shuffled = _shuffled(count, order.seed, BLOCKS, cycle) if order.shuffled else np.arange(count)
    ends = np.arange(order.windows + 1) * len(shuffled) // order.windows
    drawn = np.concatenate([[0], np.cumsum(order.blocks[shuffled, 2])])
    return shuffled, ends, drawn[ends]


@lru_cache(maxsize=8)
def _shuffled(count: int, *numbers: int) -> np.ndarray:
    order = np.random.default_rng(np.random.SeedSequence(numbers)).permutation(count)
    order.flags.writeable = False  # it is kept
    return order
