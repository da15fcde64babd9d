"""How well reading in shuffled blocks mixes the rows of a set, beside a full shuffle.

With B blocks of R rows and W windows of K blocks, M = K * R rows in a window and N = B * R in the set:

- Spearman's rank correlation rho of a row's stored and drawn positions has mean 0 over the seeds. Its variance is that
  of two linear permutation statistics, the blocks among the windows and the rows within a window:

      Var[sum] = R^4 B (B + 1) / 12 * M^2 K W (W^2 - 1) / 12
               + W * M (M + 1) / 12 * (K R (R^2 - 1) / 12 + R^3 (K - 1) B (B + 1) / 12)
      Var[rho] = Var[sum] / (N (N^2 - 1) / 12)^2

  With one window it is 1 / (N - 1), that of a full shuffle; with many it nears 1 / B.
- A batch of n rows of one window has rows of K * (1 - C(M - R, n) / C(M, n)) blocks (hypergeometric).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from srood.block_order import BlockOrder


@dataclass(frozen=True)
class ShuffleQuality:
    """Figures of an order, each beside that of a full shuffle.

    Attributes:
        rank_correlation: standard deviation, over the seeds, of the rank correlation of stored and drawn positions
        full_rank_correlation: the same of a full shuffle
        blocks_per_batch: expected number of distinct blocks of a batch that lies in one window
        full_blocks_per_batch: the same of a full shuffle
    """

    rank_correlation: float
    full_rank_correlation: float
    blocks_per_batch: float
    full_blocks_per_batch: float


def shuffle_quality(order: BlockOrder, batch_size: int) -> ShuffleQuality:
    """The quality of an order. Exact where blocks and windows are of one size; else of as many, of their mean size."""
    blocks, windows, rows = len(order.blocks), order.windows, order.rows
    return ShuffleQuality(
        _rank_correlation(rows, blocks, windows),
        _rank_correlation(rows, blocks, 1),
        _distinct_blocks(rows / windows, blocks / windows, batch_size),
        _distinct_blocks(rows, blocks, batch_size),
    )


def _rank_correlation(rows: int, blocks: int, windows: int) -> float:
    if rows < 2:
        return 0.0
    of_block, of_window, held = rows / blocks, rows / windows, blocks / windows
    among = of_block**4 * blocks * (blocks + 1) / 12 * of_window**2 * held * windows * (windows**2 - 1) / 12
    spread = held * of_block * (of_block**2 - 1) / 12 + of_block**3 * (held - 1) * blocks * (blocks + 1) / 12
    within = windows * of_window * (of_window + 1) / 12 * spread
    return math.sqrt(among + within) / (rows * (rows**2 - 1) / 12)


def _distinct_blocks(rows: float, blocks: float, batch_size: int) -> float:
    """Blocks of which a sample of `batch_size` of `rows` rows without replacement has any."""
    others = rows - rows / blocks
    if batch_size > others:
        return blocks
    absent = math.lgamma(others + 1) - math.lgamma(others - batch_size + 1)
    absent -= math.lgamma(rows + 1) - math.lgamma(rows - batch_size + 1)
    return blocks * -math.expm1(absent)
