"""Any model of timm (Wightman, "PyTorch Image Models", doi 10.5281/zenodo.4414861) as a classifier here."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import Tensor, nn

from srood.errors import InputError
from srood.models.classifier import Classifier
from srood.precision import full_precision

PREFIX = "timm:"


class TimmClassifier(Classifier):
    """A timm model without its classifier, and a last layer of its own; weights are random, none are downloaded.

    Features are what timm's classifier would see (``forward_head(forward_features(x), pre_logits=True)``). They are not
    below zero for a ResNet, which ends in a ReLU; they are for ConvNeXt or a ViT, which end in a layer norm. The
    sparsity term then acts on |F(x)|. Names of the tensors: body.* (timm's own), fc.

    Args:
        name: a name of timm's, without ``timm:``; a tag of weights ("resnet18.a1_in1k") may follow and is not heeded
        num_classes: C
        image_size: side of the images in pixels. Models that fix it, ViTs above all, are built for it; the others are
            tried with it.

    Raises:
        InputError: timm is not installed, it knows no such model, or the model gives no features of shape (N, D) for
            such images.
    """

    def __init__(self, name: str, num_classes: int, image_size: int = 32) -> None:
        super().__init__()
        self.name = name
        self.body = _create(name, image_size)
        self.fc = nn.Linear(_width(self.body, name, image_size), num_classes)
        nn.init.zeros_(self.fc.bias)

    def maps(self, x: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) to what the model's pooling sees, in the model's own layout."""
        return self.body.forward_features(x)  # type: ignore[operator]

    def features(self, x: Tensor) -> Tensor:
        """F(x): what timm's classifier would see, (N, D) float32 or wider."""
        features = _features(self.body, x)
        if features.ndim != 2 or features.shape[1] != self.fc.in_features:
            shape = f"of shape {tuple(features.shape)} for images of shape {tuple(x.shape)}"
            raise RuntimeError(f"{PREFIX}{self.name} gave features {shape}, not (N, {self.fc.in_features})")
        return features


def check_timm_name(name: str) -> None:
    """Check that timm is installed and has a model of a name, without building it.

    Raises:
        InputError: it is not, or has not; the message names models of similar names.
    """
    try:
        import timm
    except ImportError as error:
        raise InputError(f"model {PREFIX}{name}: needs timm; install it with `pip install 'srood[timm]'`") from error
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "`timm.list_models()` lists what it knows"
        raise InputError(f"model {PREFIX}{name}: timm {timm.__version__} knows no such model; {hint}")


def _create(name: str, image_size: int) -> nn.Module:
    check_timm_name(name)
    import timm

    arguments: dict[str, Any] = {"pretrained": False, "num_classes": 0}
    try:
        try:
            return timm.create_model(name, img_size=image_size, **arguments)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            return timm.create_model(name, **arguments)  # convolutional: takes any size
    except Exception as error:  # a thousand models, each with its own ways to refuse a size
        raise _refused(name, image_size, error) from error


@torch.no_grad()
def _width(body: nn.Module, name: str, image_size: int) -> int:
    """D of a model, from two images; what timm calls num_features is not always that. The model is left in training."""
    body.eval()
    try:
        features = _features(body, torch.zeros(2, 3, image_size, image_size))
    except Exception as error:
        raise _refused(name, image_size, error) from error
    body.train()
    if features.ndim != 2 or len(features) != 2:
        shape = tuple(features.shape)
        raise InputError(f"model {PREFIX}{name}: its features are {shape}, not (N, D); choose another model")
    return features.shape[1]


def _features(body: Any, x: Tensor) -> Tensor:
    maps = body.forward_features(x)
    if isinstance(maps, Tensor):  # pooled in full precision, as in the other classifiers; some give a list
        maps = full_precision(maps)
    return full_precision(body.forward_head(maps, pre_logits=True))


def _refused(name: str, image_size: int, error: Exception) -> InputError:
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
    return InputError(
        f"model {PREFIX}{name}: cannot be built for images of {image_size} pixels ({reason}); "
        "choose another --image-size or another model"
    )
