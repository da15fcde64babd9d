"""ODIN: the maximum softmax probability at a high temperature, of images moved towards their predicted class.

Liang et al., "Enhancing the reliability of out-of-distribution image detection in neural networks", ICLR 2018. It needs
the network and its gradient, so that it is no function of logits and features: two forward passes and a backward one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from srood.models.classifier import Classifier

TEMPERATURE = 1000.0
EPSILON = 0.0014


def odin(
    model: Classifier,
    x: Tensor,
    std: Sequence[float] | None = None,
    temperature: float = TEMPERATURE,
    epsilon: float = EPSILON,
) -> Tensor:
    """-max_c softmax(z(x') / T)_c of x' = x - eps sign(grad_x CE(z(x) / T, predicted class)) / std; larger = more OOD.

    T and eps are the published values for a DenseNet on CIFAR-10, which the authors chose with OOD images. The moved
    image is not clipped to [0, 1], as in their code. One batch; the network computes in the precision it has, the
    softmax in float64: at T = 1000 all probabilities are about 1 / C, and float32 would make ties.

    Args:
        model: in evaluation mode
        x: (N, 3, H, W) images, normalised
        std: standard deviation of each channel by which the images were divided, so that eps is in units of pixels
            between 0 and 1; None for eps in units of x

    Returns:
        (N,) float64, on the device of x
    """
    from pytorch_ood.detector import odin_preprocessing

    with torch.inference_mode(False):  # in which there are no gradients
        norm_std = None if std is None else list(std)
        moved = odin_preprocessing(model, x.clone(), eps=epsilon, temperature=temperature, norm_std=norm_std)
    with torch.no_grad():
        logits = model(moved).double()
    return -(logits / temperature).softmax(dim=1).amax(dim=1)
