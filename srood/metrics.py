"""How well a score tells ID from OOD images: FPR at a TPR, AUROC and AUPR.

All functions take scores of ID and of OOD images, (N,) and (M,) real numbers where larger = more OOD, and return a
share in [0, 1].

Two conventions for FPR95 are in use; they give different numbers for the same scores, so tables name theirs:

``ood-positive`` (the default here; also that of pytorch-ood and OpenOOD)
    OOD is the positive class and an image is flagged where its score >= t. t is the largest score of an OOD image at
    which at least 95 % of OOD images are flagged ("the first threshold with TPR >= 95 %"); FPR95 is the share of ID
    images flagged at t.

``id-positive`` (the wording of the paper: the share of OOD images accepted where 95 % of ID images are)
    ID is the positive class and an image is accepted where its score <= t. t is the smallest score of an ID image at
    which at least 95 % of ID images are accepted; FPR95 is the share of OOD images accepted at t.

No interpolation. Images that tie with t are flagged (accepted) with it, so a constant score has an FPR95 of 1. AUROC
is the same under both, ties counting one half. AUPR-in and AUPR-out name their positive class themselves.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from srood.errors import InputError

CONVENTIONS = {
    "ood-positive": "OOD positive: share of ID images flagged where 95 % of OOD images are flagged",
    "id-positive": "ID positive: share of OOD images accepted where 95 % of ID images are accepted",
}
DEFAULT_CONVENTION = "ood-positive"


def fpr_at_tpr(
    id_scores: ArrayLike, ood_scores: ArrayLike, tpr: float = 0.95, convention: str = DEFAULT_CONVENTION
) -> float:
    """False positive rate at the first threshold whose true positive rate is at least `tpr`, in (0, 1].

    Raises:
        InputError: unknown convention.
        ValueError: no scores, scores that are not finite, or `tpr` outside (0, 1].
    """
    if convention not in CONVENTIONS:
        raise InputError(f"convention {convention!r} is unknown; choose one of {', '.join(CONVENTIONS)}")
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr is {tpr}, which is not in (0, 1]")
    id_values, ood_values = _checked(id_scores, ood_scores)
    if convention == "ood-positive":
        positives, negatives = ood_values, id_values
    else:
        positives, negatives = -id_values, -ood_values  # accepting low scores is flagging high ones, mirrored
    count = math.ceil(tpr * len(positives))
    if (count - 1) / len(positives) >= tpr:  # tpr * n rounded up past a whole number
        count -= 1
    threshold = np.sort(positives)[len(positives) - count]
    return float(np.mean(negatives >= threshold))


def auroc(id_scores: ArrayLike, ood_scores: ArrayLike) -> float:
    """Probability that an OOD image scores higher than an ID image, ties counting one half.

    Raises:
        ValueError: no scores, or scores that are not finite.
    """
    from sklearn.metrics import roc_auc_score

    id_values, ood_values = _checked(id_scores, ood_scores)
    return float(roc_auc_score(_is_ood(id_values, ood_values), np.concatenate([id_values, ood_values])))


def aupr_in(id_scores: ArrayLike, ood_scores: ArrayLike) -> float:
    """Step-wise average precision with ID positive (the paper's AUPR). Depends on the ratio of ID to OOD images.

    Raises:
        ValueError: no scores, or scores that are not finite.
    """
    from sklearn.metrics import average_precision_score

    id_values, ood_values = _checked(id_scores, ood_scores)
    is_id = ~_is_ood(id_values, ood_values)
    return float(average_precision_score(is_id, -np.concatenate([id_values, ood_values])))


def aupr_out(id_scores: ArrayLike, ood_scores: ArrayLike) -> float:
    """Step-wise average precision with OOD positive. Depends on the ratio of ID to OOD images.

    Raises:
        ValueError: no scores, or scores that are not finite.
    """
    from sklearn.metrics import average_precision_score

    id_values, ood_values = _checked(id_scores, ood_scores)
    is_ood = _is_ood(id_values, ood_values)
    return float(average_precision_score(is_ood, np.concatenate([id_values, ood_values])))


def ood_metrics(id_scores: ArrayLike, ood_scores: ArrayLike, convention: str = DEFAULT_CONVENTION) -> dict[str, float]:
    """All four: ``fpr95`` (under `convention`), ``auroc``, ``aupr_in``, ``aupr_out``.

    Raises:
        InputError: unknown convention.
        ValueError: no scores, or scores that are not finite.
    """
    return {
        "fpr95": fpr_at_tpr(id_scores, ood_scores, 0.95, convention),
        "auroc": auroc(id_scores, ood_scores),
        "aupr_in": aupr_in(id_scores, ood_scores),
        "aupr_out": aupr_out(id_scores, ood_scores),
    }


def _is_ood(id_values: NDArray[np.float64], ood_values: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.arange(len(id_values) + len(ood_values)) >= len(id_values)


def _checked(id_scores: ArrayLike, ood_scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    checked = []
    for name, scores in (("ID", id_scores), ("OOD", ood_scores)):
        values = np.asarray(scores, dtype=np.float64)
        if values.ndim != 1 or len(values) == 0:
            raise ValueError(f"{name} scores have shape {values.shape}; one or more in one dimension are needed")
        if not np.isfinite(values).all():
            raise ValueError(f"{name} scores hold {np.sum(~np.isfinite(values))} values that are not finite")
        checked.append(values)
    return checked[0], checked[1]
