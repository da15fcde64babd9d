"""Which images make up a step, and how they are augmented: pure functions of the seed and the step.

Images stay in memory as uint8 on the device. Nothing here has state, so a run that is resumed at a step needs only the
step to draw the same batches; the random numbers come from the CPU, so they are the same on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from srood.normalisation import apply_normalisation, scale_and_shift

# purposes that random numbers are drawn for; each has streams of its own
ID_ORDER, OUTLIER_ORDER, ID_AUGMENTATION, OUTLIER_AUGMENTATION, VALIDATION = range(5)


def derived_seed(*numbers: int) -> int:
    """One 63-bit seed from several numbers, by NumPy's SeedSequence."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@lru_cache(maxsize=8)
def permutation(count: int, seed: int, purpose: int, epoch: int) -> Tensor:
    """The order of `count` images in an epoch, (count,) int64 on the CPU."""
    generator = torch.Generator().manual_seed(derived_seed(seed, purpose, epoch))
    return torch.randperm(count, generator=generator)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Steps in which each of `count` images is seen once; the last may be a smaller batch."""
    return -(-count // batch_size)


def id_rows(step: int, count: int, batch_size: int, seed: int) -> Tensor:
    """Row numbers of the ID batch of a step, (n,) int64 with n <= batch_size.

    Every epoch is a new permutation of all rows. Its last batch is smaller rather than dropped or filled up: so every
    image is seen exactly once an epoch.
    """
    epoch, position = divmod(step, steps_per_epoch(count, batch_size))
    order = permutation(count, seed, ID_ORDER, epoch)
    return order[position * batch_size : (position + 1) * batch_size]


def outlier_rows(step: int, count: int, batch_size: int, seed: int) -> Tensor:
    """Row numbers of the outlier batch of a step, (batch_size,) int64.

    The outliers are an endless stream of permutations: all of them are used once before any is used again, whatever
    the length of the ID epoch; a batch may lie across two permutations.
    """
    start, end = step * batch_size, (step + 1) * batch_size
    parts = []
    while start < end:
        cycle, offset = divmod(start, count)
        part = permutation(count, seed, OUTLIER_ORDER, cycle)[offset : offset + end - start]
        parts.append(part)
        start += len(part)
    return torch.cat(parts)


def augment(images: Tensor, padding: int, seed: int, purpose: int, step: int) -> Tensor:
    """Random horizontal flip (half of the images) and random crop after padding with black, per image.

    Args:
        images: (N, H, W, 3) uint8
        padding: pixels on each side; offsets are uniform over the 2 * padding + 1 positions of each axis
        seed, purpose, step: what the random numbers are a function of

    Returns:
        (N, H, W, 3) uint8, on the device of `images`
    """
    count, height, width, _ = images.shape
    generator = torch.Generator().manual_seed(derived_seed(seed, purpose, step))
    offsets = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
    flipped = torch.rand(count, 1, generator=generator) < 0.5
    rows = offsets[0] + torch.arange(height)
    across = torch.arange(width).expand(count, width)
    columns = offsets[1] + torch.where(flipped, across.flip(1), across)
    padded = torch.nn.functional.pad(images, (0, 0, padding, padding, padding, padding))
    device = images.device
    numbers = torch.arange(count, device=device)[:, None, None]
    return padded[numbers, rows.to(device)[:, :, None], columns.to(device)[:, None, :]]


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32: pixels / 255, minus the mean, over the standard deviation."""
    return apply_normalisation(images, *scale_and_shift(mean, std, images.device))
