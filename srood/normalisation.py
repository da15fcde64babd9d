"""From pixels to what a classifier takes: (p / 255 - mean) / std as one multiplication and one subtraction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def scale_and_shift(
    mean: Sequence[float], std: Sequence[float], device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """1 / (255 std) and mean / std of the three channels, each (3,) float32."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=device)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=device)
    return scale, shift


def apply_normalisation(
    images: Tensor, scale: Tensor, shift: Tensor, memory_format: torch.memory_format = torch.contiguous_format
) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in a memory format: pixels times `scale`, minus `shift`."""
    return (images * scale - shift).permute(0, 3, 1, 2).contiguous(memory_format=memory_format)
