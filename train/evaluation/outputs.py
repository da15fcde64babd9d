"""What a classifier makes of images: logits and features from one forward pass, on which every score is computed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from srood.models import Classifier
from srood.models.weights import Triple
from train.batches import normalise
from train.devices import make_fabric


class Outputs(NamedTuple):
    """Of N images, in their order: `logits` (N, C) and `features` (N, D), float32 on the CPU."""

    logits: Tensor
    features: Tensor


def forward(
    classifier: Classifier,
    images: np.ndarray,
    device: torch.device,
    precision: str,
    mean: Triple,
    std: Triple,
    batch_size: int = 500,
    advance: Callable[[int], None] | None = None,
) -> Outputs:
    """Logits and features of (N, H, W, 3) uint8 images; the classifier is put into evaluation mode.

    `advance` is called with the number of images after every batch.
    """
    model = make_fabric(device, precision).setup(classifier.eval())
    logits, features = [], []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(images[start : start + batch_size]).to(device)
            z, pooled = model(normalise(batch, mean, std), return_features=True)
            logits.append(z.float().cpu())
            features.append(pooled.float().cpu())
            if advance is not None:
                advance(len(batch))
    return Outputs(torch.cat(logits), torch.cat(features))


def forward_code(classifier: nn.Module) -> str:
    """SHA-256 (hex) that changes with the code that the outputs come from.

    It covers `forward`, what it calls to normalise images and to set the precision, the modules of this project that
    the network is made of, and the versions of the packages that the rest comes from (torch, lightning-fabric, timm).
    """
    modules = {kind.__module__ for part in classifier.modules() for kind in type(part).__mro__}
    packages = {name.partition(".")[0] for name in modules} - {"builtins", "srood"}
    own = {name for name in modules if name.startswith("srood.")} | {"srood.normalisation", "srood.precision"}
    return code_hash(own, packages | {"lightning-fabric"}, forward, normalise, make_fabric)


def code_hash(modules: Collection[str], packages: Collection[str], *functions: Callable) -> str:
    """SHA-256 (hex) of imported modules' source files, of packages' versions and of functions' source."""
    digest = hashlib.sha256("".join(map(inspect.getsource, functions)).encode())
    for package in sorted(packages):
        try:
            digest.update(f"{package} {importlib.metadata.version(package)}".encode())
        except importlib.metadata.PackageNotFoundError:  # a network defined in a script, say
            digest.update(package.encode())
    for name in sorted(modules):
        digest.update(Path(str(sys.modules[name].__file__)).read_bytes())
    return digest.hexdigest()
