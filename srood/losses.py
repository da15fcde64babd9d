"""The training losses: cross entropy, L1 sparsity of the features, outlier exposure, SR and SROE.

Source: "Exploring feature sparsity for out-of-distribution detection", Scientific Reports 14:28444 (2024),
doi 10.1038/s41598-024-79934-7. Every function computes in float32 or wider, also on half-precision inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from srood.precision import full_precision

ALPHA = 0.02  # weight of the sparsity term; the paper's value for every ID set and network
BETA = 0.5  # weight of the outlier term; likewise


class LossParts(NamedTuple):
    """A loss and the unweighted terms that it was added up from, by name; each a scalar tensor.

    Only `total` is meant to be differentiated. The terms ``cross_entropy`` and ``sparsity`` are always there, to be
    watched, also where the loss does not have them.
    """

    total: Tensor
    terms: dict[str, Tensor]


Loss = Callable[[Tensor, Tensor, Tensor], LossParts]  # logits (N + M, C), features (N + M, D), labels (N,)


def sparsity(features: Tensor) -> Tensor:
    """L_sparsity = mean over images of ||F(x)||_1: a sum over the D features, then a mean over the batch.

    Args:
        features: (N, D) floating point, the pooled penultimate features of the images
    """
    return full_precision(features).abs().sum(dim=1).mean()


def outlier_exposure(logits: Tensor) -> Tensor:
    """L_OE = mean over outliers of logsumexp(z) - mean_c z_c.

    It is the cross entropy from the uniform distribution to softmax(z), which is KL(uniform || softmax z) + log C; its
    smallest value is therefore log C, reached where all C logits are equal.

    Args:
        logits: (N, C) floating point, logits of outliers
    """
    logits = full_precision(logits)
    return (logits.logsumexp(dim=1) - logits.mean(dim=1)).mean()


def ce_loss(logits: Tensor, features: Tensor, labels: Tensor) -> LossParts:
    """L_CE, the loss of pretraining. The sparsity of the features is computed without gradient, to be watched.

    Args:
        logits: (N, C) floating point
        features: (N, D) floating point
        labels: (N,) int64, in [0, C)
    """
    cross_entropy = F.cross_entropy(full_precision(logits), labels)
    return LossParts(cross_entropy, {"cross_entropy": cross_entropy, "sparsity": sparsity(features.detach())})


def sr_loss(logits: Tensor, features: Tensor, labels: Tensor, *, alpha: float = ALPHA) -> LossParts:
    """L_SR = L_CE + alpha * L_sparsity, for when no outliers are at hand (paper, workflow SR).

    Args:
        logits: (N, C) floating point
        features: (N, D) floating point, from the same forward pass
        labels: (N,) int64, in [0, C)
        alpha: weight of the sparsity term
    """
    cross_entropy = F.cross_entropy(full_precision(logits), labels)
    l1 = sparsity(features)
    return LossParts(cross_entropy + alpha * l1, {"cross_entropy": cross_entropy, "sparsity": l1})


def sroe_loss(
    logits: Tensor,
    features: Tensor,
    labels: Tensor,
    *,
    alpha: float = ALPHA,
    beta: float = BETA,
    outlier_sparsity: bool = False,
) -> LossParts:
    """L_SROE = L_CE + alpha * L_sparsity + beta * L_OE (paper, Algorithm 1).

    One forward pass gives logits and features of N ID images followed by M outliers; N is the number of labels. The
    sparsity term is of the N ID images only (Algorithm 1), or of all N + M images as in the authors' code.

    Args:
        logits: (N + M, C) floating point, M >= 1
        features: (N + M, D) floating point, from the same forward pass
        labels: (N,) int64, in [0, C)
        alpha: weight of the sparsity term
        beta: weight of the outlier term
        outlier_sparsity: whether the sparsity term is the mean over ID images and outliers together

    Raises:
        ValueError: there are no rows after the ID rows.
    """
    count = len(labels)
    if len(logits) <= count:
        raise ValueError(f"sroe_loss: {len(logits)} rows of logits for {count} labels leave no outliers")
    cross_entropy = F.cross_entropy(full_precision(logits[:count]), labels)
    l1 = sparsity(features if outlier_sparsity else features[:count])
    oe = outlier_exposure(logits[count:])
    total = cross_entropy + alpha * l1 + beta * oe
    return LossParts(total, {"cross_entropy": cross_entropy, "sparsity": l1, "outlier_exposure": oe})
