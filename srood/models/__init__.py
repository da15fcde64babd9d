"""Classifiers: one architecture a file, each ``model(x) -> logits`` and ``model.features(x) -> (N, D)``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from srood.errors import InputError
from srood.models.allconv import AllConv
from srood.models.classifier import Classifier
from srood.models.densenet import DenseNet
from srood.models.resnet import ResNet18, ResNet20
from srood.models.timm_models import PREFIX, TimmClassifier, check_timm_name
from srood.models.wideresnet import WideResNet

# classes -> classifier; every model of timm is had besides, as timm:NAME
MODELS: dict[str, Callable[[int], Classifier]] = {
    "resnet20": ResNet20,
    "wrn-40-2": partial(WideResNet, depth=40, widening=2),
    "wrn-28-10": partial(WideResNet, depth=28, widening=10),
    "resnet18": ResNet18,
    "densenet": DenseNet,
    "allconv": AllConv,
}
MODEL_CHOICES = f"{', '.join(MODELS)} or {PREFIX}NAME for a model of timm"

__all__ = ["MODELS", "MODEL_CHOICES", "Classifier", "build_model", "check_model"]


def check_model(name: str) -> None:
    """Check that there is an architecture of a name, without building it.

    Raises:
        InputError: there is none, or it is one of timm's and timm is not installed.
    """
    if name.startswith(PREFIX):
        check_timm_name(name.removeprefix(PREFIX))
    elif name not in MODELS:
        raise InputError(f"model {name!r} is unknown; choose one of {MODEL_CHOICES}")


def build_model(name: str, num_classes: int, image_size: int = 32) -> Classifier:
    """A freshly initialised classifier, from torch's global random generator, on the CPU in float32.

    Args:
        name: a key of `MODELS`, or ``timm:NAME``
        num_classes: C
        image_size: side of the images in pixels; the weights of some timm models (ViTs) depend on it

    Raises:
        InputError: as `check_model`, or the model does not take images of that size.
    """
    check_model(name)
    if name.startswith(PREFIX):
        return TimmClassifier(name.removeprefix(PREFIX), num_classes, image_size)
    model = MODELS[name](num_classes)
    if image_size < model.min_image_size:
        least = f"at least {model.min_image_size} pixels"
        raise InputError(f"model {name}: takes images of {least}, not {image_size}; choose another --image-size")
    return model
