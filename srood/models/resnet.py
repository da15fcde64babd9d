"""ResNet-20 for 32-pixel images (He et al., CVPR 2016, section 4.2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from srood.models.classifier import Classifier, initialise


class ResNet20(Classifier):
    """Three stages of three blocks with 16, 32 and 64 channels; D = 64, 269,722 parameters with 10 classes.

    Shortcuts have no parameters (option A of the paper): stride-2 subsampling, and zeros for the new channels. Names
    of the tensors: conv1, bn1, layer{1,2,3}.{0,1,2}.{conv1,bn1,conv2,bn2}, fc.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(_Block(16, 16), _Block(16, 16), _Block(16, 16))
        self.layer2 = nn.Sequential(_Block(16, 32), _Block(32, 32), _Block(32, 32))
        self.layer3 = nn.Sequential(_Block(32, 64), _Block(64, 64), _Block(64, 64))
        self.fc = nn.Linear(64, num_classes)
        initialise(self)

    def maps(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.layer3(self.layer2(self.layer1(x)))


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.new_channels = channels_out - channels_in
        self.stride = 2 if self.new_channels else 1
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.new_channels:
            before = self.new_channels // 2  # half of the zeros on each side, as the public weights expect
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, self.new_channels - before))
        return F.relu(x + y, inplace=True)
