"""AllConv as the literature on outlier exposure uses it, after All-CNN-C.

All-CNN-C is of Springenberg et al., "Striving for Simplicity: The All Convolutional Net", ICLR workshop 2015 (arXiv
1412.6806). The AllConv of outlier exposure (Hendrycks et al., ICLR 2019; github.com/hendrycks/outlier-exposure,
SVHN/models/allconv.py), which the SR paper's code took over unchanged, is that network with batch norm, with 2x2
max-pooling and dropout of one half in place of strided convolutions, and with a linear layer on pooled features.
"""

from __future__ import annotations

from torch import Tensor, nn

from srood.models.classifier import Classifier, initialise


class AllConv(Classifier):
    """Nine convolutions of 96 and 192 channels; D = 192, 1,408,234 parameters with 10 classes.

    Three things differ from that code. The activation is ReLU (as in the paper of All-CNN-C, and in outlier exposure's
    TinyImageNet/models/allconv.py) and not a GELU, because the L1 term is about features that can be exactly zero. The
    1x1 convolutions are not padded and the features are the mean over the whole map; there, padding grows the maps from
    6x6 to 10x10 and an 8x8 corner of them is averaged. Convolutions have no bias, since batch norm takes it away.

    Images are at least 12 pixels wide: the third stage has an unpadded 3x3 convolution on maps of a quarter of that.
    Names of the tensors: stage{1,2,3}.{3i}.weight (convolutions), stage{1,2,3}.{3i+1} (batch norm), fc.
    """

    min_image_size = 12

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(*_layer(3, 96), *_layer(96, 96), *_layer(96, 96))
        self.pool1 = nn.Sequential(nn.MaxPool2d(2), nn.Dropout(0.5))
        self.stage2 = nn.Sequential(*_layer(96, 192), *_layer(192, 192), *_layer(192, 192))
        self.pool2 = nn.Sequential(nn.MaxPool2d(2), nn.Dropout(0.5))
        self.stage3 = nn.Sequential(*_layer(192, 192, padding=0), *_layer(192, 192, 1, 0), *_layer(192, 192, 1, 0))
        self.fc = nn.Linear(192, num_classes)
        initialise(self)

    def maps(self, x: Tensor) -> Tensor:
        return self.stage3(self.pool2(self.stage2(self.pool1(self.stage1(x)))))


def _layer(channels_in: int, channels_out: int, kernel: int = 3, padding: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, kernel, padding=padding, bias=False)
    return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)]
