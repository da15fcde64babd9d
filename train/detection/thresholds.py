"""The threshold that accepts a given share of ID images, from the scores of held-out ones, and how far to trust it.

With the scores s_(1) <= ... <= s_(n) of n held-out ID images and a wanted share p, the threshold is the order statistic
s_(k) with k = ceil(p n): the smallest score at which at least p of these images are accepted (score <= threshold).
That is also the threshold of FPR95 under the convention ``id-positive``.

Two intervals need no assumption but that the images are independent draws from one distribution whose scores are
continuous:

threshold_interval
    of the p quantile of the distribution: [s_(l), s_(u)]. B ~ Binomial(n, p) counts the images at or below the
    quantile; P(B < l) and P(B >= u) are each at most (1 - confidence) / 2, with l as large and u as small as that
    allows (David and Nagaraja, "Order Statistics", 2003, section 7.1).
acceptance_interval
    of the share of the distribution that s_(k) accepts. Over draws of the held-out images that share is distributed as
    Beta(k, n - k + 1); the interval lies between two of its quantiles, with equal tails (Vovk, "Conditional validity of
    inductive conformal predictors", ACML 2012; Angelopoulos and Bates, "Conformal Prediction", 2023, section 3.2).
    Where scores tie the share can only be larger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from srood.errors import InputError

CONFIDENCE = 0.95  # of both intervals


@dataclass(frozen=True)
class Threshold:
    """A threshold with its uncertainty; see the module."""

    threshold: float
    order_statistic: int
    accepted: int
    threshold_interval: tuple[float, float]
    acceptance_interval: tuple[float, float]


def choose_threshold(scores: Sequence[float] | np.ndarray, tpr: float, confidence: float = CONFIDENCE) -> Threshold:
    """The smallest of (n,) ID scores at which at least a share `tpr` of them is accepted, with its intervals.

    Raises:
        ValueError: fewer scores than `images_needed`, or scores that are not finite.
    """
    from scipy.stats import beta

    ascending = np.sort(np.asarray(scores, np.float64))
    count = len(ascending)
    if not np.isfinite(ascending).all():
        raise ValueError("scores hold values that are not finite")
    lower, upper = threshold_ranks(count, tpr, confidence)
    if lower < 1 or upper > count:
        raise ValueError(
            f"{count} scores are too few for a share of {tpr}; {images_needed(tpr, confidence)} are needed"
        )
    rank = math.ceil(Fraction(repr(float(tpr))) * count)  # exact: 0.95 of 100 is 95, whatever the float product is
    threshold = float(ascending[rank - 1])
    tails = (1 - confidence) / 2, (1 + confidence) / 2
    low, high = (float(bound) for bound in beta.ppf(tails, rank, count - rank + 1))
    return Threshold(
        threshold,
        rank,
        int(np.searchsorted(ascending, threshold, side="right")),
        (float(ascending[lower - 1]), float(ascending[upper - 1])),
        (low, high),
    )


def threshold_ranks(count: int, tpr: float, confidence: float = CONFIDENCE) -> tuple[int, int]:
    """Ranks l and u, counted from 1, of the order statistics that bound the `tpr` quantile.

    l = 0 or u = `count` + 1 say that there are too few scores for that bound.
    """
    from scipy.stats import binom

    tail = (1 - confidence) / 2
    return int(binom.ppf(tail, count, tpr)), int(binom.ppf(1 - tail, count, tpr)) + 1


def images_needed(tpr: float, confidence: float = CONFIDENCE) -> int:
    """The smallest number of images with which both ends of the threshold's interval are among their scores.

    Raises:
        InputError: `tpr` is not in (0, 1).
    """
    if not 0 < tpr < 1:
        raise InputError(f"--tpr {tpr:g}: is not between 0 and 1; 0.95 accepts 95 % of ID images")
    extreme = max(tpr, 1 - tpr)
    count = math.floor(math.log((1 - confidence) / 2) / math.log(extreme))
    while extreme**count > (1 - confidence) / 2:  # all images on one side of the quantile
        count += 1
    return max(1, count)
