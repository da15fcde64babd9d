"""How well a score tells ID from OOD images: FPR at a TPR, AUROC, AUPR and detection error.

All functions take scores of ID and of OOD images, (N,) and (M,) real numbers where larger = more OOD, and return a
share in [0, 1]. What is measured on ID images alone is in `srood.id_metrics`.

Three conventions for the FPR are in use; they give different numbers for the same scores, so tables name theirs. `tpr`
is 0.95 for the usual FPR95:

``ood-positive`` (the default here; also that of pytorch-ood and OpenOOD)
    OOD is the positive class and an image is flagged where its score >= t. t is the largest score at which a share of
    at least `tpr` of the OOD images is flagged; the FPR is the share of ID images flagged at t.

``id-positive`` (the wording of the paper: the share of OOD images accepted where 95 % of ID images are)
    ID is the positive class and an image is accepted where its score <= t. t is the smallest score at which a share of
    at least `tpr` of the ID images is accepted; the FPR is the share of OOD images accepted at t.

``paper`` (what the authors' code computes, after Hendrycks et al., "Deep anomaly detection with outlier exposure")
    As ``id-positive``, but t is the score at which the share of ID images accepted is *nearest* to `tpr`, above or
    below; of two equally near (in float64), the larger share. Of several scores with that share, OOD images lying
    between two ID images, t is the largest, which accepts the most of them; but with all ID images accepted, the
    smallest.

No interpolation. Images that tie with t are flagged (accepted) with it, so a constant score has an FPR of 1. AUROC and
detection error are the same under all three, AUPR-in and AUPR-out name their positive class themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from srood.errors import InputError

CONVENTIONS = {
    "ood-positive": "OOD positive: share of ID images flagged at the first threshold that flags at least TPR of the "
    "OOD images",
    "id-positive": "ID positive: share of OOD images accepted at the first threshold that accepts at least TPR of the "
    "ID images",
    "paper": "ID positive: share of OOD images accepted at the threshold whose share of ID images accepted is nearest "
    "to TPR (the authors' code)",
}
DEFAULT_CONVENTION = "ood-positive"
DEFAULT_TPR = 0.95


def fpr_name(tpr: float = DEFAULT_TPR) -> str:
    """The name of the FPR at `tpr` in results: ``fpr95`` for 0.95, ``fpr99.5`` for 0.995."""
    return f"fpr{100 * tpr:g}"


def describe_convention(convention: str, tpr: float = DEFAULT_TPR) -> str:
    """The definition of a convention in words, with the value of `tpr`, for outputs.

    Raises:
        InputError: unknown convention.
    """
    return _check_convention(convention).replace("TPR", f"{100 * tpr:g} %")


def ood_metrics(
    id_scores: ArrayLike,
    ood_scores: ArrayLike,
    convention: str = DEFAULT_CONVENTION,
    tpr: float = DEFAULT_TPR,
) -> dict[str, float]:
    """All of them from one sort: ``fpr95`` (see `fpr_name`), ``auroc``, ``aupr_in``, ``aupr_out``, ``detection_error``.

    Raises:
        InputError: unknown convention.
        ValueError: no scores, scores that are not finite, or `tpr` outside (0, 1].
    """
    _check_convention(convention)
    counts = _count(id_scores, ood_scores)
    return {
        fpr_name(tpr): _fpr(counts, tpr, convention),
        "auroc": _auroc(counts),
        "aupr_in": _average_precision(counts.id_accepted, counts.ood_accepted),
        "aupr_out": _average_precision(counts.ood_flagged[::-1], counts.id_flagged[::-1]),
        "detection_error": _detection_error(counts),
    }


def fpr_at_tpr(
    id_scores: ArrayLike,
    ood_scores: ArrayLike,
    tpr: float = DEFAULT_TPR,
    convention: str = DEFAULT_CONVENTION,
) -> float:
    """False positive rate at the true positive rate `tpr`, in (0, 1], under a convention.

    Raises:
        InputError: unknown convention.
        ValueError: no scores, scores that are not finite, or `tpr` outside (0, 1].
    """
    _check_convention(convention)
    return _fpr(_count(id_scores, ood_scores), tpr, convention)


def auroc(id_scores: ArrayLike, ood_scores: ArrayLike) -> float:
    """Probability that an OOD image scores higher than an ID image, ties counting one half.

    Raises:
        ValueError: no scores, or scores that are not finite.
    """
    return _auroc(_count(id_scores, ood_scores))


def aupr_in(id_scores: ArrayLike, ood_scores: ArrayLike) -> float:
    """Step-wise average precision with ID positive (the paper's AUPR). Depends on the ratio of ID to OOD images.

    Raises:
        ValueError: no scores, or scores that are not finite.
    """
    counts = _count(id_scores, ood_scores)
    return _average_precision(counts.id_accepted, counts.ood_accepted)


def aupr_out(id_scores: ArrayLike, ood_scores: ArrayLike) -> float:
    """Step-wise average precision with OOD positive. Depends on the ratio of ID to OOD images.

    Raises:
        ValueError: no scores, or scores that are not finite.
    """
    counts = _count(id_scores, ood_scores)
    return _average_precision(counts.ood_flagged[::-1], counts.id_flagged[::-1])


def detection_error(id_scores: ArrayLike, ood_scores: ArrayLike) -> float:
    """min over thresholds of (1 - TPR) / 2 + FPR / 2: the smallest error where ID and OOD are equally likely.

    Source: Liang et al., "Enhancing the reliability of out-of-distribution image detection in neural networks" (ODIN),
    ICLR 2018, section 4.2. At most 1/2, as a threshold may flag everything or nothing.

    Raises:
        ValueError: no scores, or scores that are not finite.
    """
    return _detection_error(_count(id_scores, ood_scores))


@dataclass(frozen=True)
class _Counts:
    """Numbers of images at each distinct score t, ascending; all (K,) int64."""

    id_at: NDArray[np.int64]  # score = t
    ood_at: NDArray[np.int64]

    @property
    def id_accepted(self) -> NDArray[np.int64]:  # score <= t
        return np.cumsum(self.id_at)

    @property
    def ood_accepted(self) -> NDArray[np.int64]:
        return np.cumsum(self.ood_at)

    @property
    def id_flagged(self) -> NDArray[np.int64]:  # score >= t
        return np.cumsum(self.id_at[::-1])[::-1]

    @property
    def ood_flagged(self) -> NDArray[np.int64]:
        return np.cumsum(self.ood_at[::-1])[::-1]


def _count(id_scores: ArrayLike, ood_scores: ArrayLike) -> _Counts:
    id_values, ood_values = _checked("ID", id_scores), _checked("OOD", ood_scores)
    values = np.concatenate([id_values, ood_values])
    order = np.argsort(values)
    values, is_id = values[order], order < len(id_values)
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))  # of each run of equal scores
    id_at = np.add.reduceat(is_id, starts, dtype=np.int64)
    return _Counts(id_at, np.diff(starts, append=len(values)) - id_at)


def _fpr(counts: _Counts, tpr: float, convention: str) -> float:
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr is {tpr}, which is not in (0, 1]")
    if convention == "ood-positive":
        flagged = counts.ood_flagged / counts.ood_at.sum()
        last = np.flatnonzero(flagged >= tpr)[-1]
        return float(counts.id_flagged[last] / counts.id_at.sum())
    accepted = counts.id_accepted / counts.id_at.sum()
    if convention == "id-positive":
        chosen = np.flatnonzero(accepted >= tpr)[0]
    else:
        accepted = accepted[: np.flatnonzero(accepted == 1)[0] + 1]
        chosen = len(accepted) - 1 - np.argmin(np.abs(accepted - tpr)[::-1])  # the last of the nearest
    return float(counts.ood_accepted[chosen] / counts.ood_at.sum())


def _auroc(counts: _Counts) -> float:
    # twice the number of pairs won, so that it stays whole; float64 would round above 2 ** 53
    twice_won = np.sum(counts.ood_at * (2 * counts.id_accepted - counts.id_at))
    return float(twice_won / (2 * counts.id_at.sum() * counts.ood_at.sum()))


def _average_precision(hits: NDArray[np.int64], alarms: NDArray[np.int64]) -> float:
    """Sum over thresholds of (recall gained) x precision, from cumulated counts of positives and negatives."""
    gained = np.diff(hits, prepend=0)
    return float(np.sum(gained * (hits / (hits + alarms))) / hits[-1])


def _detection_error(counts: _Counts) -> float:
    missed = 1 - counts.ood_flagged / counts.ood_at.sum()
    error = 0.5 * missed + 0.5 * counts.id_flagged / counts.id_at.sum()
    return float(min(error.min(), 0.5))


def _check_convention(convention: str) -> str:
    if convention not in CONVENTIONS:
        raise InputError(f"convention {convention!r} is unknown; choose one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[convention]


def _checked(name: str, scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"{name} scores have shape {values.shape}; one or more in one dimension are needed")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} scores hold {np.sum(~np.isfinite(values))} values that are not finite")
    return values
