"""ResNet-20 and ResNet-18 for small images (He et al., CVPR 2016, arXiv 1512.03385)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from srood.models.classifier import Classifier, initialise


class ResNet20(Classifier):
    """Three stages of three blocks with 16, 32 and 64 channels; D = 64, 269,722 parameters with 10 classes.

    The paper's CIFAR network (section 4.2). Shortcuts have no parameters (option A): stride-2 subsampling, and zeros
    for the new channels. Names of the tensors: conv1, bn1, layer{1,2,3}.{0,1,2}.{conv1,bn1,conv2,bn2}, fc.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(_Block(16, 16), _Block(16, 16), _Block(16, 16))
        self.layer2 = nn.Sequential(_Block(16, 32, _Subsample(16)), _Block(32, 32), _Block(32, 32))
        self.layer3 = nn.Sequential(_Block(32, 64, _Subsample(32)), _Block(64, 64), _Block(64, 64))
        self.fc = nn.Linear(64, num_classes)
        initialise(self)

    def maps(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.layer3(self.layer2(self.layer1(x)))


class ResNet18(Classifier):
    """Four stages of two blocks with 64 to 512 channels; D = 512, 11,173,962 parameters with 10 classes.

    The paper's ImageNet network (table 1) with the stem that is usual for 32-pixel images, a 3x3 convolution of stride
    1 and no max-pooling, so that these give 4x4 maps. Shortcuts are 1x1 convolutions where the size changes (option
    B). Names of the tensors are torchvision's: conv1, bn1, layer{1,2,3,4}.{0,1}.{conv1,bn1,conv2,bn2,downsample}, fc.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(_Block(64, 64), _Block(64, 64))
        self.layer2 = nn.Sequential(_Block(64, 128, _projection(64, 128)), _Block(128, 128))
        self.layer3 = nn.Sequential(_Block(128, 256, _projection(128, 256)), _Block(256, 256))
        self.layer4 = nn.Sequential(_Block(256, 512, _projection(256, 512)), _Block(512, 512))
        self.fc = nn.Linear(512, num_classes)
        initialise(self)

    def maps(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; with a shortcut module that halves the image the first has stride 2."""

    def __init__(self, channels_in: int, channels_out: int, downsample: nn.Module | None = None) -> None:
        super().__init__()
        stride = 1 if downsample is None else 2
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class _Subsample(nn.Module):
    """Option A: every second pixel, and `new_channels` of zeros, half of them on each side as public weights expect."""

    def __init__(self, new_channels: int) -> None:
        super().__init__()
        self.new_channels = new_channels

    def forward(self, x: Tensor) -> Tensor:
        before = self.new_channels // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, self.new_channels - before))


def _projection(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride=2, bias=False), nn.BatchNorm2d(channels_out))
