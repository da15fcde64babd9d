"""Training losses to compare with: through pytorch-ood where it has them, OECC of our own.

Each function takes the weights of a method and returns its loss: a function of the logits and features of N ID images
followed by M outliers, and of the N labels. The terms ``cross_entropy`` (of the ID logits as they are) and ``sparsity``
(of the ID features) are watched without gradient where the loss does not have them.

Precision: pytorch-ood allocates in torch's default dtype and refuses to mix, so its inputs are brought to that dtype,
float32 unless the caller has set another. pytorch-ood is imported when a loss is made: it takes seconds.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from srood.losses import Loss, LossParts, sparsity
from srood.precision import full_precision

# The batches over which the authors of OECC sum; their published weights belong to these.
OECC_ID_BATCH = 128
OECC_OUTLIER_BATCH = 256


def outlier_exposure(*, beta: float) -> Loss:
    """OE: L_CE + beta * mean over outliers of (logsumexp(z) - mean_c z_c).

    Hendrycks et al., ICLR 2019, arXiv 1812.04606. Each term is a mean over its own images, as in the authors' code;
    pytorch-ood's own mean over both together would weigh them by their share of the batch.
    """
    from pytorch_ood.loss import OutlierExposureLoss

    per_image = OutlierExposureLoss(alpha=1.0, reduction="none")

    def loss(logits: Tensor, features: Tensor, labels: Tensor) -> LossParts:
        values = per_image(_default_dtype(logits), _targets(logits, labels))
        cross_entropy, exposure = values[: len(labels)].mean(), values[len(labels) :].mean()
        return LossParts(
            cross_entropy + beta * exposure,
            {"cross_entropy": cross_entropy, "sparsity": _watched(features, labels), "outlier_exposure": exposure},
        )

    return loss


def energy(*, beta: float, m_in: float, m_out: float) -> Loss:
    """Energy fine-tuning: L_CE + beta * (mean_ID max(0, E - m_in)^2 + mean_outliers max(0, m_out - E)^2).

    E = -logsumexp(z). Liu et al., NeurIPS 2020, arXiv 2010.03759.
    """
    from pytorch_ood.loss import EnergyRegularizedLoss

    total = EnergyRegularizedLoss(alpha=beta, margin_in=m_in, margin_out=m_out)
    per_image = EnergyRegularizedLoss(alpha=1.0, margin_in=m_in, margin_out=m_out, reduction="none")

    def loss(logits: Tensor, features: Tensor, labels: Tensor) -> LossParts:
        count, logits, targets = len(labels), _default_dtype(logits), _targets(logits, labels)
        with torch.no_grad():
            cross_entropy = F.cross_entropy(logits[:count], labels, reduction="none")
            values = per_image(logits, targets)  # cross entropy and hinge of an ID image, hinge of an outlier
        terms = {
            "cross_entropy": cross_entropy.mean(),
            "sparsity": _watched(features, labels),
            "energy_id": (values[:count] - cross_entropy).mean(),
            "energy_outliers": values[count:].mean(),
        }
        return LossParts(total(logits, targets), terms)

    return loss


def oecc(*, lambda_1: float, lambda_2: float, accuracy: float) -> Loss:
    """OECC: L_CE + lambda_1 * sum_ID (max_c p_c - accuracy)^2 + lambda_2 * sum_outliers sum_c |p_c - 1/C|.

    p = softmax(z). Papadopoulos et al., Neurocomputing 2021, arXiv 1906.03509, as in the authors' code. They sum over
    batches of 128 ID images and 256 outliers; here each sum is a mean times that number, so that the weights hold for
    any batch.
    """

    def loss(logits: Tensor, features: Tensor, labels: Tensor) -> LossParts:
        count, logits = len(labels), full_precision(logits)
        cross_entropy = F.cross_entropy(logits[:count], labels)
        probabilities = logits.softmax(dim=1)
        confidence = OECC_ID_BATCH * (probabilities[:count].amax(dim=1) - accuracy).square().mean()
        uniformity = OECC_OUTLIER_BATCH * (probabilities[count:] - 1 / logits.shape[1]).abs().sum(dim=1).mean()
        terms = {
            "cross_entropy": cross_entropy,
            "sparsity": _watched(features, labels),
            "confidence": confidence,
            "uniformity": uniformity,
        }
        return LossParts(cross_entropy + lambda_1 * confidence + lambda_2 * uniformity, terms)

    return loss


def entropic_open_set() -> Loss:
    """Entropic open-set: (N L_CE + M L_OE) / (N + M), one mean over ID images and outliers together.

    Dhamija et al., NeurIPS 2018, arXiv 1811.04110.
    """
    from pytorch_ood.loss import EntropicOpenSetLoss

    per_image = EntropicOpenSetLoss(reduction="none")

    def loss(logits: Tensor, features: Tensor, labels: Tensor) -> LossParts:
        values = per_image(_default_dtype(logits), _targets(logits, labels))
        terms = {
            "cross_entropy": values[: len(labels)].mean(),
            "sparsity": _watched(features, labels),
            "outlier_exposure": values[len(labels) :].mean(),
        }
        return LossParts(values.mean(), terms)

    return loss


def objectosphere(*, alpha: float, xi: float) -> Loss:
    """Objectosphere: the entropic open-set loss + alpha * L_magnitude.

    L_magnitude = mean over all N + M images of max(0, xi - ||F||_2)^2 for ID images and ||F||_2^2 for outliers.
    Dhamija et al., NeurIPS 2018, arXiv 1811.04110.
    """
    from pytorch_ood.loss import EntropicOpenSetLoss, ObjectosphereLoss

    total = ObjectosphereLoss(alpha=alpha, xi=xi)
    per_image = ObjectosphereLoss(alpha=1.0, xi=xi, reduction="none")
    entropic = EntropicOpenSetLoss(reduction="none")

    def loss(logits: Tensor, features: Tensor, labels: Tensor) -> LossParts:
        targets = _targets(logits, labels)
        logits, features = _default_dtype(logits), _default_dtype(features)
        with torch.no_grad():
            values = entropic(logits, targets)
            magnitude = (per_image(logits, features, targets) - values).mean()
        terms = {
            "cross_entropy": values[: len(labels)].mean(),
            "sparsity": _watched(features, labels),
            "outlier_exposure": values[len(labels) :].mean(),
            "magnitude": magnitude,
        }
        return LossParts(total(logits, features, targets), terms)

    return loss


def logit_norm(*, temperature: float) -> Loss:
    """LogitNorm: the cross entropy of z / (temperature * ||z||_2), on ID images.

    Wei et al., ICML 2022, arXiv 2205.09310.
    """
    from pytorch_ood.loss import LogitNorm

    normed = LogitNorm(t=temperature)

    def loss(logits: Tensor, features: Tensor, labels: Tensor) -> LossParts:
        logits = _default_dtype(logits[: len(labels)])
        total = normed(logits, labels)
        cross_entropy = F.cross_entropy(logits.detach(), labels)
        terms = {"cross_entropy": cross_entropy, "sparsity": _watched(features, labels), "logit_norm": total}
        return LossParts(total, terms)

    return loss


def _targets(logits: Tensor, labels: Tensor) -> Tensor:
    # pytorch-ood marks outliers by a negative label
    return torch.cat([labels, labels.new_full((len(logits) - len(labels),), -1)])


def _default_dtype(x: Tensor) -> Tensor:
    return x.to(torch.get_default_dtype())


def _watched(features: Tensor, labels: Tensor) -> Tensor:
    return sparsity(features[: len(labels)].detach())
