"""Classifiers: one architecture a file, each ``model(x) -> logits`` and ``model.features(x) -> (N, D)``."""

from __future__ import annotations

from collections.abc import Callable

from srood.errors import InputError
from srood.models.classifier import Classifier
from srood.models.resnet import ResNet20
from srood.models.wideresnet import WideResNet40x2

MODELS: dict[str, Callable[[int], Classifier]] = {"resnet20": ResNet20, "wrn-40-2": WideResNet40x2}

__all__ = ["MODELS", "Classifier", "build_model"]


def build_model(name: str, num_classes: int) -> Classifier:
    """A freshly initialised classifier, from torch's global random generator.

    Raises:
        InputError: there is no architecture of that name.
    """
    if name not in MODELS:
        raise InputError(f"model {name!r} is unknown; choose one of {', '.join(MODELS)}")
    return MODELS[name](num_classes)
