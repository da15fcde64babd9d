"""Post-hoc scores of the logits and their softmax: entropy, GEN, KL-matching, OpenMax, temperature scaling, GradNorm.

Each function is a builder of `srood.posthoc`: from the last layer and ID images, logits (N, C), features (N, D) and
labels (N,), to a score of logits (B, C) and features (B, D), all float64 on the CPU. Larger = more OOD.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from srood.errors import InputError
from srood.scores import Score, msp

GEN_GAMMA = 0.1  # the paper's value for every ID set
OPENMAX_TAIL = 20  # Bendale and Boult's eta
OPENMAX_TOP = 10  # and alpha: classes whose activations are revised
LOG_TEMPERATURES = (-4.0, 4.0)


def entropy(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """-sum_c p_c log p_c; without pytorch-ood's clipping of p at 1e-7, which makes ties of confident images."""
    return lambda z, f: torch.special.entr(z.softmax(dim=1)).sum(dim=1)


def gen(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """sum_c p_c^g (1 - p_c)^g with g = 0.1 over all classes, divided by C as in pytorch-ood.

    Without pytorch-ood's clamp of p to [1e-7, 1 - 1e-7], which makes ties of confident images: 1 - p of the largest p
    is the sum of the others.
    """

    def score(z: Tensor, f: Tensor) -> Tensor:
        p, rest = z.softmax(dim=1), 1 - z.softmax(dim=1)
        top = p.argmax(dim=1, keepdim=True)
        rest.scatter_(1, top, p.scatter(1, top, 0.0).sum(dim=1, keepdim=True))
        return (p * rest).pow(GEN_GAMMA).mean(dim=1)

    return score


def kl_matching(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """min_k KL(p || d_k), d_k the mean posterior of the ID images predicted as class k; by pytorch-ood."""
    from pytorch_ood.detector import KLMatching

    detector = KLMatching(None).fit_logits(logits, labels)
    return lambda z, f: detector.predict_logits(z)


def temperature_scaling(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """-max_c softmax(z / T)_c with the T that minimises the cross entropy of the ID images given.

    T is searched here because pytorch-ood stops its search after 50 steps, far from the minimum.
    """
    temperature = fit_temperature(logits, labels)
    return lambda z, f: msp(z / temperature)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T > 0 that minimises the mean cross entropy of softmax(z / T) (Guo et al., ICML 2017, section 4.2).

    Meant for held-out images: on images the classifier was trained on, it comes out too small. Searched between e^-4
    and e^4.

    Args:
        logits: (N, C) floating point
        labels: (N,) int64, in [0, C)
    """
    from scipy.optimize import minimize_scalar

    def cross_entropy(log_temperature: float) -> float:
        return float(nn.functional.cross_entropy(logits.double() / np.exp(log_temperature), labels))

    found = minimize_scalar(cross_entropy, bounds=LOG_TEMPERATURES, method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))


def openmax(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """Softmax probability of the unknown class, in logit space, with Euclidean distances (tail 20, top 10 classes).

    Centres and Weibull tails are pytorch-ood's, of the ID images classified rightly. Its scoring is a Python loop over
    images, and takes the distance to a class as zero where no image of the batch is predicted as that class; here it
    is one expression over the batch.
    """
    from pytorch_ood.detector.openmax.numpy import OpenMax

    right = logits.argmax(dim=1) == labels
    if not right.any():
        raise InputError("none of them is classified rightly")
    detector = OpenMax(tailsize=OPENMAX_TAIL, alpha=OPENMAX_TOP, euclid_weight=1.0)
    detector.fit(logits[right].numpy(), labels[right].numpy())
    count = logits.shape[1]
    centres = torch.zeros(count, count, dtype=torch.float64)
    shape, scale, shift = (torch.ones(count, dtype=torch.float64) for _ in range(3))
    fitted = torch.zeros(count, dtype=torch.bool)
    for label, tail in detector.distributions.items():
        centres[label] = torch.from_numpy(detector.centers[label])
        shape[label], scale[label], shift[label] = tail.c, tail.scale, tail.translation - tail.min_val
        fitted[label] = True
    top = min(OPENMAX_TOP, count)
    ranked = (top - torch.arange(top, dtype=torch.float64)) / top  # (alpha - i + 1) / alpha for i = 1 ... alpha

    def score(z: Tensor, f: Tensor) -> Tensor:
        distances = torch.cdist(z, centres, compute_mode="donot_use_mm_for_euclid_dist")
        outside = -torch.expm1(-(((distances + shift) / scale) ** shape))  # Weibull CDF
        outside = torch.where(fitted, outside, 1.0)  # a class without ID images is unknown
        best = z.topk(top, dim=1).indices
        taken = torch.zeros_like(z).scatter(1, best, outside.gather(1, best) * ranked)
        unknown = (z * taken).sum(dim=1, keepdim=True)
        return torch.cat([unknown, z * (1 - taken)], dim=1).softmax(dim=1)[:, 0]

    return score


def gradnorm(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """-||F||_1 ||p - 1/C||_1, the L1 norm of the last layer's gradient of KL(uniform || softmax z), in closed form."""
    return lambda z, f: -f.abs().sum(dim=1) * (z.softmax(dim=1) - 1 / z.shape[1]).abs().sum(dim=1)
