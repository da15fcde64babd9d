"""Which images make up a step, and how they are augmented: pure functions of the seed and the step.

Images stay in memory as uint8, on the device where they fit, and are augmented there in batches. Nothing here has
state, so a run that is resumed at a step needs only the step to draw the same batches; the random numbers come from the
CPU, so they are the same on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from srood.normalisation import apply_normalisation, scale_and_shift
from train.device_images import sent

# purposes that random numbers are drawn for; each has streams of its own
ID_ORDER, OUTLIER_ORDER, ID_AUGMENTATION, OUTLIER_AUGMENTATION, VALIDATION, DROPOUT, WEIGHTS = range(7)


def derived_seed(*numbers: int) -> int:
    """One 63-bit seed from several numbers, by NumPy's SeedSequence."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@lru_cache(maxsize=8)
def permutation(count: int, seed: int, purpose: int, *numbers: int) -> Tensor:
    """An order of `count` images, (count,) int64 on the CPU; `numbers` tell it from others of its purpose."""
    generator = torch.Generator().manual_seed(derived_seed(seed, purpose, *numbers))
    return torch.randperm(count, generator=generator)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Steps in which each of `count` images is seen once; the last may be a smaller batch."""
    return -(-count // batch_size)


def stream_rows(step: int, count: int, batch_size: int, seed: int, stream: tuple[int, ...], stored: bool) -> Tensor:
    """Row numbers of a step's batch from an endless stream over `count` rows, (batch_size,) int64.

    All rows are used once before any is used again; a batch may lie across two passes. Each pass is a new permutation,
    or the stored order again and again where `stored`.

    Args:
        step: number of the batch
        count: rows of the set
        batch_size: rows a batch
        seed: of the run
        stream: what tells this stream from the run's others
    """
    start, end = step * batch_size, (step + 1) * batch_size
    if stored:
        return torch.arange(start, end) % count
    parts = []
    while start < end:
        cycle, offset = divmod(start, count)
        part = permutation(count, seed, OUTLIER_ORDER, *stream, cycle)[offset : offset + end - start]
        parts.append(part)
        start += len(part)
    return torch.cat(parts)


def augment(
    images: Tensor, padding: int, seed: int, purpose: int, step: int, place: tuple[int, int] | None = None
) -> Tensor:
    """Random horizontal flip (half of the images) and random crop after padding with black, per image.

    Args:
        images: (N, H, W, 3) uint8
        padding: pixels on each side; offsets are uniform over the 2 * padding + 1 positions of each axis
        seed, purpose, step: what the random numbers are a function of
        place: the step's number of images, and the number of the first of these among them; by default these are all.
            However a step is divided, each of its images is augmented alike.

    Returns:
        (N, H, W, 3) uint8, on the device of `images`
    """
    count, height, width, _ = images.shape
    total, first = place or (count, 0)
    own = slice(first, first + count)
    generator = torch.Generator().manual_seed(derived_seed(seed, purpose, step))
    offsets = torch.randint(0, 2 * padding + 1, (2, total, 1), generator=generator)[:, own]
    flipped = torch.rand(total, 1, generator=generator)[own] < 0.5
    device = images.device
    offsets, flipped = sent(offsets, device), sent(flipped, device)
    rows = offsets[0] + torch.arange(height, device=device)
    across = torch.arange(width, device=device).expand(count, width)
    columns = offsets[1] + torch.where(flipped, across.flip(1), across)
    padded = torch.nn.functional.pad(images, (0, 0, padding, padding, padding, padding))
    numbers = torch.arange(count, device=device)[:, None, None]
    return padded[numbers, rows[:, :, None], columns[:, None, :]]


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32: pixels / 255, minus the mean, over the standard deviation."""
    return apply_normalisation(images, *scale_and_shift(mean, std, images.device))
