"""The images in memory that a run trains on and those it holds out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from srood.datasets import Images
from srood.errors import InputError
from srood.outliers import OutlierSet
from train.config import AnyConfig, TuneConfig, outlier_weight
from train.id_sets import validation_split
from train.plan import Plan, shares_of


@dataclass(frozen=True)
class TrainingImages:
    """(N, H, W, 3) uint8 images and (N,) int64 labels.

    Attributes:
        images, labels: ID images to train on
        outliers: images of each outlier set
        held_out, held_out_labels: ID images to validate on, or None
        held_out_outliers: outliers to validate on, of each set
    """

    images: Tensor
    labels: Tensor
    outliers: list[Tensor] = field(default_factory=list)
    held_out: Tensor | None = None
    held_out_labels: Tensor | None = None
    held_out_outliers: list[Tensor] = field(default_factory=list)

    def plan(self, config: AnyConfig) -> Plan:
        """Which of them make up each step.

        Raises:
            InputError: an outlier set would have no share in a step.
        """
        counts = tuple(len(images) for images in self.outliers)
        if not isinstance(config, TuneConfig) or not counts:
            return Plan(config, len(self.images))
        weights = [outlier_weight(spec)[1] for spec in config.outliers]
        return Plan(config, len(self.images), counts, shares_of(weights, config.outlier_batch_size))


def training_images(config: AnyConfig, images: Images, sets: Sequence[OutlierSet] = ()) -> TrainingImages:
    """Divide the ID images and the outliers of a run into what it trains on and what it holds out.

    Raises:
        InputError: there are too few images to hold any out.
    """
    pixels, labels = torch.from_numpy(images.images), torch.from_numpy(images.labels)
    outliers = [torch.from_numpy(found.read_images()) for found in sets]
    if config.validation == 0:
        return TrainingImages(pixels, labels, outliers)
    kept, held_out = (
        torch.from_numpy(rows) for rows in validation_split(images.labels, config.validation, config.seed)
    )
    if len(held_out) == 0:
        raise InputError(f"--validation {config.validation:g}: no class of {images.spec} has an image to spare")
    divided = []
    for part in outliers:
        alike = np.zeros(len(part), np.int64)
        divided.append([part[rows] for rows in validation_split(alike, config.validation, config.seed)])
    for found, (_, spared) in zip(sets, divided, strict=True):
        if len(spared) == 0:
            raise InputError(f"--validation {config.validation:g}: {found.path} has no row to spare")
    kept_outliers, held_out_outliers = ([pair[side] for pair in divided] for side in (0, 1))
    return TrainingImages(
        pixels[kept], labels[kept], kept_outliers, pixels[held_out], labels[held_out], held_out_outliers
    )
