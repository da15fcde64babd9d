"""Wide residual networks (Zagoruyko and Komodakis, BMVC 2016, arXiv 1605.07146); WRN-40-2 is the SR paper's own."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from srood.models.classifier import Classifier, initialise


class WideResNet(Classifier):
    """Three groups of (depth - 4) / 6 pre-activation blocks with 16, 32 and 64 times `widening` channels.

    WRN-40-2 has D = 128 and 2,243,546 parameters with 10 classes, WRN-28-10 D = 640 and 36,479,194. Dropout lies
    between the two convolutions of a block. The depth counts the 1x1 shortcuts too.

    Args:
        num_classes: C
        depth: 6n + 4
        widening: channels over those of a ResNet
        dropout: share of values dropped while training; 0.3 in both papers
    """

    def __init__(self, num_classes: int, depth: int, widening: int, dropout: float = 0.3) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest:
            raise ValueError(f"a wide residual network has a depth of 6n + 4, not {depth}")
        widths = [16, 16 * widening, 32 * widening, 64 * widening]
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.group1 = _group(blocks, widths[0], widths[1], stride=1, dropout=dropout)
        self.group2 = _group(blocks, widths[1], widths[2], stride=2, dropout=dropout)
        self.group3 = _group(blocks, widths[2], widths[3], stride=2, dropout=dropout)
        self.bn = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], num_classes)
        initialise(self)

    def maps(self, x: Tensor) -> Tensor:
        x = self.group3(self.group2(self.group1(self.conv1(x))))
        return F.relu(self.bn(x), inplace=True)


def _group(blocks: int, channels_in: int, channels_out: int, stride: int, dropout: float) -> nn.Sequential:
    rest = [_Block(channels_out, channels_out, 1, dropout) for _ in range(blocks - 1)]
    return nn.Sequential(_Block(channels_in, channels_out, stride, dropout), *rest)


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = (
            None if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x), inplace=True)
        y = F.relu(self.bn2(self.conv1(activated)), inplace=True)
        y = self.conv2(self.dropout(y))
        return y + (x if self.shortcut is None else self.shortcut(activated))
