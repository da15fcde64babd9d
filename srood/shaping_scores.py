"""Post-hoc scores that reshape the features and take the energy of the logits that they then give: ReAct, ASH and kin.

Each function is a builder of `srood.posthoc`: from the last layer and ID images, logits (N, C), features (N, D) and
labels (N,), to a score of logits (B, C) and features (B, D), all float64 on the CPU. Larger = more OOD.

The detectors are pytorch-ood's. Where the papers work on feature maps, the pooled features are given to them as maps
of one pixel, which is where ReAct, SCALE and LTS act in their papers; ASH acts before pooling in its own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from srood.scores import Score, energy

REACT_PERCENTILE = 0.9
DICE_SPARSITY = 0.9  # the paper's value for CIFAR
SHAPING_PERCENTILE = 0.65  # of ASH and SCALE
LTS_SHARE = 0.05
VRA_PERCENTILES = (0.01, 0.99)


def react(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """Energy with features clipped at the 90th percentile of all features of ID images."""
    from pytorch_ood.detector import ReAct

    detector = ReAct(_identity, _on_maps(head), percentile=REACT_PERCENTILE, detector=energy)
    detector.fit_feature_maps(_maps(features), labels)
    return lambda z, f: detector.predict_feature_maps(_maps(f))


def vra(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """Energy with each feature clipped to between its 1st and 99th percentile over ID images."""
    from pytorch_ood.detector import VRA

    low, high = VRA_PERCENTILES
    detector = VRA(_identity, _on_maps(head), lower_percentile=low, upper_percentile=high, detector=energy)
    detector.fit_feature_maps(_maps(features), labels)
    return lambda z, f: detector.predict_feature_maps(_maps(f))


def dice(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """Energy with the 90 % of weights left out that contribute least (mean ID feature x weight)."""
    from pytorch_ood.detector import DICE

    detector = DICE(None, head.weight, head.bias, p=DICE_SPARSITY).fit_features(features, labels)
    # a matrix product; pytorch-ood's scoring holds (B, C, D) numbers at once
    weight = torch.where(detector.masked_w != 0, head.weight, 0.0)
    return lambda z, f: energy(f @ weight.T + head.bias)


def ash(variant: str) -> Callable[[nn.Linear, Tensor, Tensor, Tensor], Score]:
    """The builder for energy with all but the largest 35 % of an image's features set to zero, and the others

    as they are (``ash-p``), all equal with the same sum (``ash-b``), or times exp(sum before / sum after) (``ash-s``).
    """

    def build(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
        from pytorch_ood.detector import ASH

        detector = ASH(_identity, _on_maps(head), variant, SHAPING_PERCENTILE, detector=energy)
        return _where_active(lambda z, f: detector.predict_feature_maps(_maps(f)))

    return build


def scale(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """Energy with an image's features times exp(their sum / the sum of the largest 35 %)."""
    from pytorch_ood.detector import SCALE

    detector = SCALE(_identity, _on_maps(head), SHAPING_PERCENTILE, detector=energy)
    return _where_active(lambda z, f: detector.predict_feature_maps(_maps(f)))


def lts(head: nn.Linear, logits: Tensor, features: Tensor, labels: Tensor) -> Score:
    """Energy of the logits times (sum of the features / sum of the largest 5 %)^2."""
    from pytorch_ood.detector import LTS

    detector = LTS(None, head, p=LTS_SHARE, detector=energy)
    return _where_active(lambda z, f: detector.predict_features(f))


def _where_active(score: Score) -> Score:
    """`score`, but the plain energy for images without a feature above zero, of which the factor would be 0 / 0."""
    return lambda z, f: torch.where((f > 0).any(dim=1), score(z, f), energy(z))


def _maps(features: Tensor) -> Tensor:
    return features[:, :, None, None]


def _on_maps(head: nn.Linear) -> Callable[[Tensor], Tensor]:
    return lambda maps: head(maps.flatten(start_dim=1))


def _identity(x: Tensor) -> Tensor:
    return x
