"""DenseNet-BC for 32-pixel images (Huang et al., CVPR 2017, arXiv 1608.06993)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srood.models.classifier import Classifier, initialise

GROWTH = 12  # k: channels that a layer adds
LAYERS = 16  # in each of three blocks, two convolutions each: depth 100 with the stem, two transitions and `fc`


class DenseNet(Classifier):
    """DenseNet-BC of depth 100 with k = 12 and compression 0.5; D = 342, 769,162 parameters with 10 classes.

    A layer sees every earlier one of its block: batch norm, ReLU, 1x1 convolution to 4k channels (B), batch norm, ReLU,
    3x3 convolution to k. A transition between blocks halves the channels (C) and the image. No dropout, as the paper
    has it for augmented images. Names of the tensors: conv1, block{1,2,3}.{0..15}.{bn1,conv1,bn2,conv2},
    transition{1,2}.{bn,conv}, bn, fc.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        channels = 2 * GROWTH
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.block1, channels = _block(channels)
        self.transition1 = _Transition(channels)
        self.block2, channels = _block(channels // 2)
        self.transition2 = _Transition(channels)
        self.block3, channels = _block(channels // 2)
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, num_classes)
        initialise(self)

    def maps(self, x: Tensor) -> Tensor:
        x = self.transition1(self.block1(self.conv1(x)))
        x = self.transition2(self.block2(x))
        return F.relu(self.bn(self.block3(x)), inplace=True)


def _block(channels: int) -> tuple[nn.Sequential, int]:
    """A dense block and the channels that come out of it."""
    layers = [_Layer(channels + i * GROWTH) for i in range(LAYERS)]
    return nn.Sequential(*layers), channels + LAYERS * GROWTH


class _Layer(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * GROWTH, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * GROWTH)
        self.conv2 = nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.bn1(x), inplace=True))
        y = self.conv2(F.relu(self.bn2(y), inplace=True))
        return torch.cat([x, y], dim=1)


class _Transition(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.bn(x), inplace=True)), 2)
