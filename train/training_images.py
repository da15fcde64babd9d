"""The images that a run trains on and those it holds out: in memory, but for outlier sets that are read in blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from srood.datasets import Images
from srood.errors import InputError
from srood.outliers import OutlierSet
from train.block_sets import BlockSet, block_sets
from train.config import AnyConfig, TuneConfig, outlier_weight
from train.id_sets import validation_split
from train.plan import Plan, shares_of

MOVED_ROWS = 4096  # at a time


@dataclass(frozen=True)
class TrainingImages:
    """(N, H, W, 3) uint8 images and (N,) int64 labels.

    Attributes:
        images, labels: ID images to train on
        outliers: images of each outlier set, or how it is read in blocks
        held_out, held_out_labels: ID images to validate on, or None
        held_out_outliers: outliers to validate on, of each set
    """

    images: Tensor
    labels: Tensor
    outliers: list[Tensor | BlockSet] = field(default_factory=list)
    held_out: Tensor | None = None
    held_out_labels: Tensor | None = None
    held_out_outliers: list[Tensor] = field(default_factory=list)

    def plan(self, config: AnyConfig) -> Plan:
        """Which of them make up each step.

        Raises:
            InputError: an outlier set would have no share in a step.
        """
        orders = tuple(found.order if isinstance(found, BlockSet) else None for found in self.outliers)
        counts = tuple(found.order.rows if isinstance(found, BlockSet) else len(found) for found in self.outliers)
        if not isinstance(config, TuneConfig) or not counts:
            return Plan(config, len(self.images))
        weights = [outlier_weight(spec)[1] for spec in config.outliers]
        shares = shares_of(weights, config.outlier_batch_size)
        return Plan(config, len(self.images), counts, shares, orders if any(orders) else ())


def training_images(config: AnyConfig, images: Images, sets: Sequence[OutlierSet] = ()) -> TrainingImages:
    """Divide the ID images and the outliers of a run into what it trains on and what it holds out.

    Raises:
        InputError: there are too few images to hold any out.
    """
    pixels, labels = torch.from_numpy(images.images), torch.from_numpy(images.labels)
    outliers: list[Tensor | BlockSet] = [
        how or torch.from_numpy(found.read_images()) for found, how in zip(sets, _block_sets(config, sets), strict=True)
    ]
    if config.validation == 0:
        return TrainingImages(pixels, labels, outliers)
    kept, held_out = (
        torch.from_numpy(rows) for rows in validation_split(images.labels, config.validation, config.seed)
    )
    if len(held_out) == 0:
        raise InputError(f"--validation {config.validation:g}: no class of {images.spec} has an image to spare")
    divided: list[tuple[Tensor | BlockSet, Tensor]] = []
    for part in outliers:
        if isinstance(part, BlockSet):
            divided.append((part, part.held_out_images()))
            continue
        alike = np.zeros(len(part), np.int64)
        divided.append(divided_in_place(part, *validation_split(alike, config.validation, config.seed)))
    for found, (_, spared) in zip(sets, divided, strict=True):
        if len(spared) == 0:
            raise InputError(f"--validation {config.validation:g}: {found.path} has no row to spare")
    train_on, validate_on = [pair[0] for pair in divided], [pair[1] for pair in divided]
    return TrainingImages(pixels[kept], labels[kept], train_on, pixels[held_out], labels[held_out], validate_on)


def divided_in_place(images: Tensor, kept: np.ndarray, held_out: np.ndarray) -> tuple[Tensor, Tensor]:
    """The rows `kept` and `held_out` as two views of `images`, whose rows are moved: a copy may not fit in memory.

    Args:
        images: (M, H, W, 3) uint8
        kept, held_out: row numbers, ascending; together every row once
    """
    spared = images[held_out]
    for start in range(0, len(kept), MOVED_ROWS):
        rows = kept[start : start + MOVED_ROWS]
        images[start : start + len(rows)] = images[rows]  # forwards: no row lies before its new place
    images[len(kept) :] = spared
    return images[: len(kept)], images[len(kept) :]


def _block_sets(config: AnyConfig, sets: Sequence[OutlierSet]) -> list[BlockSet | None]:
    return block_sets(config, sets) if isinstance(config, TuneConfig) else [None] * len(sets)
