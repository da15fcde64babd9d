"""OOD scores: one function each from logits to a score an image. Larger = more OOD, for every score here.

Inputs are (N, C) logits in any floating type, outputs (N,) scores in float32 or wider. `SCORES` has all of them by
name, as functions of logits and features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def energy(logits: Tensor) -> Tensor:
    """E(x) = -logsumexp(z(x)), the free energy at temperature 1 (Liu et al., NeurIPS 2020, equation 4)."""
    return -_full_precision(logits).logsumexp(dim=1)


def msp(logits: Tensor) -> Tensor:
    """-max_c softmax(z)_c, the negated maximum softmax probability (Hendrycks and Gimpel, ICLR 2017).

    In float32 the most confident images tie at -1; float64 logits keep them apart.
    """
    return -_full_precision(logits).softmax(dim=1).amax(dim=1)


def max_logit(logits: Tensor) -> Tensor:
    """-max_c z_c, the negated largest logit (Hendrycks et al., ICML 2022)."""
    return -_full_precision(logits).amax(dim=1)


Score = Callable[[Tensor, Tensor], Tensor]  # logits (N, C), features (N, D) -> (N,)

SCORES: dict[str, Score] = {
    "energy": lambda logits, features: energy(logits),
    "msp": lambda logits, features: msp(logits),
    "max-logit": lambda logits, features: max_logit(logits),
}


def _full_precision(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
