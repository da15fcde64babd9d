"""What every architecture here has in common: feature maps -> pooled features -> logits."""

from __future__ import annotations

from typing import ClassVar, Literal, overload

import torch
from torch import Tensor, nn

from srood.precision import full_precision


class Classifier(nn.Module):
    """A network ``model(x) -> logits`` that also shows its penultimate features.

    A subclass defines `maps`, ending in a ReLU, and the last layer `fc`. (Models of timm end as they do.)

    Attributes:
        fc: the last layer, D features to C logits
        min_image_size: side of the smallest images that it takes, in pixels
    """

    fc: nn.Linear
    min_image_size: ClassVar[int] = 1

    def maps(self, x: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) to feature maps (N, D, h, w), none below zero."""
        raise NotImplementedError

    def features(self, x: Tensor) -> Tensor:
        """F(x): the feature maps averaged over space, (N, D) float32 or wider, none below zero."""
        return full_precision(self.maps(x)).mean(dim=(2, 3))

    def classify(self, features: Tensor) -> Tensor:
        """z: features (N, D) to logits (N, C), in the precision of the weights even under autocast.

        Eight bits of logit would make ties of many scores, and the layer costs next to nothing.
        """
        if torch.is_autocast_enabled(features.device.type):
            with torch.autocast(features.device.type, enabled=False):
                return self.fc(features.to(self.fc.weight.dtype))
        return self.fc(features)

    @overload
    def forward(self, x: Tensor, return_features: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, return_features: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Normalised images (N, 3, H, W) to logits (N, C); with `return_features` to (logits, features)."""
        features = self.features(x)
        logits = self.classify(features)
        return (logits, features) if return_features else logits


def initialise(model: nn.Module) -> None:
    """He initialisation (fan out) for convolutions, 1 and 0 for batch norm, zero bias for the last layer."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
