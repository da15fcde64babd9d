"""How right and how well calibrated a classifier is on ID images: accuracy, ECE, and risk against coverage (AURC)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

ECE_BINS = 15


def accuracy(logits: ArrayLike, labels: ArrayLike) -> float:
    """Share of images whose largest logit is that of their label.

    Args:
        logits: (N, C) real numbers; probabilities do as well
        labels: (N,) integers in [0, C)

    Raises:
        ValueError: shapes that do not match, or no images.
    """
    z, y = _checked(logits, labels)
    return float(np.mean(z.argmax(axis=1) == y))


def ece(logits: ArrayLike, labels: ArrayLike, bins: int = ECE_BINS) -> float:
    """Expected calibration error: sum over bins of (share of images) x |accuracy - mean confidence|.

    Confidence is max_c softmax(z)_c; the bins ((b - 1) / B, b / B] have equal widths and hold their upper edge. Source:
    Guo et al., "On calibration of modern neural networks", ICML 2017, equation 3; 15 bins as in their tables.

    Args:
        logits: (N, C) real numbers
        labels: (N,) integers in [0, C)
        bins: B, the number of bins over (0, 1]

    Raises:
        ValueError: shapes that do not match, no images, or `bins` below 1.
    """
    z, y = _checked(logits, labels)
    if bins < 1:
        raise ValueError(f"bins is {bins}, which is below 1")
    shares = np.exp(z - z.max(axis=1, keepdims=True))
    confidence = 1 / shares.sum(axis=1)  # the largest share is exp(0)
    correct = z.argmax(axis=1) == y
    which = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    surplus = np.bincount(which, weights=correct - confidence, minlength=bins)
    return float(np.abs(surplus).sum() / len(y))


def aurc(scores: ArrayLike, correct: ArrayLike) -> float:
    """Area under the risk-coverage curve: mean over i = 1 ... N of the error rate among the i lowest scores.

    Images with the same score could come in any order: the mean over their orders is taken, which is exact and does
    not depend on the order of the rows. Source: Geifman and El-Yaniv, "Selective classification for deep neural
    networks", NeurIPS 2017; Geifman et al., "Bias-reduced uncertainty estimation", ICLR 2019, section 4.

    Args:
        scores: (N,) real numbers, larger = less certain (any score of `srood.scores`)
        correct: (N,) booleans, whether the classifier is right

    Raises:
        ValueError: shapes that do not match, no images, or scores that are not finite.
    """
    values, wrong = _checked_certainty(scores, correct)
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))  # of each run of equal scores
    sizes = np.diff(starts, append=len(values))
    errors = np.add.reduceat(wrong, starts)
    within = np.repeat(errors / sizes, sizes)  # errors of a run spread evenly over it
    return float(np.mean(np.cumsum(within) / np.arange(1, len(values) + 1)))


def eaurc(scores: ArrayLike, correct: ArrayLike) -> float:
    """Excess AURC: `aurc` minus that of the best order, which has all right images before all wrong ones.

    0 for the best order. Source: Geifman et al., ICLR 2019, section 4.

    Args:
        scores: (N,) real numbers, larger = less certain
        correct: (N,) booleans, whether the classifier is right

    Raises:
        ValueError: shapes that do not match, no images, or scores that are not finite.
    """
    return aurc(scores, correct) - aurc(np.sort(~np.asarray(correct, dtype=bool)), np.sort(correct)[::-1])


def _checked(logits: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if z.ndim != 2 or y.shape != z.shape[:1] or len(y) == 0:
        raise ValueError(f"logits of shape {z.shape} and labels of shape {y.shape}; (N, C) and (N,) are needed")
    return z, y


def _checked_certainty(scores: ArrayLike, correct: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values, right = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=bool)
    if values.ndim != 1 or right.shape != values.shape or len(values) == 0:
        raise ValueError(f"scores of shape {values.shape} and correct of shape {right.shape}; both (N,) are needed")
    if not np.isfinite(values).all():
        raise ValueError(f"scores hold {np.sum(~np.isfinite(values))} values that are not finite")
    order = np.argsort(values)
    return values[order], (~right[order]).astype(np.float64)
