"""Figures over seeds: means, intervals, and differences between what was trained with the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: of the values
        half: half the width of Student's t interval at 95 %; None for fewer than two values
        low, high: the smallest and the largest value
        count: of values
    """

    mean: float
    half: float | None
    low: float
    high: float
    count: int


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of values of one or more seeds, with the interval ``mean ± t(n - 1, 0.975) s / sqrt(n)``."""
    array = np.asarray(values, dtype=np.float64)
    half = None
    if len(array) > 1:
        from scipy.stats import t

        half = float(t.ppf((1 + CONFIDENCE) / 2, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    return Estimate(float(array.mean()), half, float(array.min()), float(array.max()), len(array))


def paired(values: Mapping[int, float], control: Mapping[int, float]) -> Estimate | None:
    """Value less that of the control, seed by seed, over the seeds that both have; None where there are none."""
    shared = sorted(values.keys() & control.keys())
    return estimate([values[seed] - control[seed] for seed in shared]) if shared else None
