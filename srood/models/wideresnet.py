"""WRN-40-2 (Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016), the network of the paper's main tables."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from srood.models.classifier import Classifier, initialise


class WideResNet40x2(Classifier):
    """Depth 40, widening factor 2: three groups of six pre-activation blocks with 32, 64 and 128 channels; D = 128,
    2,243,546 parameters with 10 classes. Dropout lies between the two convolutions of a block.
    """

    def __init__(self, num_classes: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.group1 = _group(16, 32, stride=1, dropout=dropout)
        self.group2 = _group(32, 64, stride=2, dropout=dropout)
        self.group3 = _group(64, 128, stride=2, dropout=dropout)
        self.bn = nn.BatchNorm2d(128)
        self.fc = nn.Linear(128, num_classes)
        initialise(self)

    def maps(self, x: Tensor) -> Tensor:
        x = self.group3(self.group2(self.group1(self.conv1(x))))
        return F.relu(self.bn(x), inplace=True)


def _group(channels_in: int, channels_out: int, stride: int, dropout: float) -> nn.Sequential:
    rest = [_Block(channels_out, channels_out, 1, dropout) for _ in range(5)]
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
