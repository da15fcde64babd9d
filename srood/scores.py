"""OOD scores: one function each from logits or features to a score an image. Larger = more OOD, for every score here.

Inputs are (N, C) logits or (N, D) features in any floating type, outputs (N,) scores in float32 or wider. `SCORES` has
all of them by name, as functions of logits and features; `srood.posthoc.choose` knows these and all others.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from srood.precision import full_precision


def energy(logits: Tensor) -> Tensor:
    """E(x) = -logsumexp(z(x)), the free energy at temperature 1 (Liu et al., NeurIPS 2020, equation 4)."""
    return -full_precision(logits).logsumexp(dim=1)


def msp(logits: Tensor) -> Tensor:
    """-max_c softmax(z)_c, the negated maximum softmax probability (Hendrycks and Gimpel, ICLR 2017).

    In float32 the most confident images tie at -1; float64 logits keep them apart.
    """
    return -full_precision(logits).softmax(dim=1).amax(dim=1)


def max_logit(logits: Tensor) -> Tensor:
    """-max_c z_c, the negated largest logit (Hendrycks et al., ICML 2022)."""
    return -full_precision(logits).amax(dim=1)


def sparsity(features: Tensor) -> Tensor:
    """-||F||_2^2 / ||F||_1, the negated activation of an active unit; 0, the largest value, where no unit is active.

    With n = ||F||_1^2 / ||F||_2^2, the effective number of active units (D where all are alike, 1 where one alone is
    active), the score is -||F||_1 / n: features of ID images are few and strong, those of OOD images weak or spread.
    Neither half will do alone: OOD images of textures have weak features that are as sparse as those of ID images, and
    the features of near OOD images are nearly as strong but less sparse. docs/scores.md has the measurement.

    Args:
        features: (N, D) floating point, the pooled penultimate features
    """
    features = full_precision(features)
    total = features.abs().sum(dim=1)
    return torch.where(total > 0, -features.square().sum(dim=1) / total, torch.zeros_like(total))


Score = Callable[[Tensor, Tensor], Tensor]  # logits (N, C), features (N, D) -> (N,)

SCORES: dict[str, Score] = {
    "energy": lambda logits, features: energy(logits),
    "msp": lambda logits, features: msp(logits),
    "max-logit": lambda logits, features: max_logit(logits),
    "sparsity": lambda logits, features: sparsity(features),
}
ODIN = "odin"  # srood.odin: needs the network, not only logits and features
