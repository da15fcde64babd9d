"""Which of the surviving rows are kept."""

from __future__ import annotations

import numpy as np


def uniform(count: int, size: int, seed: int) -> np.ndarray:
    """Row numbers of a uniform sample without replacement, (min(count, size),) int64, in random order.

    The order is one seeded permutation of all rows: any prefix is a uniform sample too, and samples of different sizes
    with the same seed are nested.
    """
    return np.random.default_rng(np.random.SeedSequence([seed, 0x5A3])).permutation(count)[:size]
