"""Images that show nothing: of one colour, nearly so, or made of too few pixels (stage "quality", after decoding).

An image of one colour teaches a classifier nothing about what outliers look like, and a web corpus is full of them:
place-holders, failed downloads, empty maps. Images over 20 times as long as wide are dropped in decoding already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from srood.images import MAX_ASPECT

LEVELS = ("default", "none")
# Standard deviation over the pixels of an image, on the scale of 0 to 255, of whichever of R, G and B varies most: a
# grey level alone would take red shapes on green for blank. Chosen on Tiny ImageNet (docs/sources.md).
BLANK_BELOW = 1.0
NEAR_CONSTANT_BELOW = 4.0


def recorded(level: str, max_upscale: float | None) -> dict[str, Any] | None:
    """What decides which rows are dropped, for the manifest; None where nothing is."""
    if level == "none" and max_upscale is None:
        return None
    contrast = {"blank_below": BLANK_BELOW, "near_constant_below": NEAR_CONSTANT_BELOW} if level == "default" else {}
    return {**contrast, "max_aspect": MAX_ASPECT, "max_upscale": max_upscale}


def options(limits: Mapping[str, Any] | None) -> tuple[str, float | None]:
    """The level and the largest upscale for which `recorded` gives these limits."""
    limits = limits or {}
    return "default" if "blank_below" in limits else "none", limits.get("max_upscale")


def contrast(pixels: np.ndarray) -> np.ndarray:
    """The largest of the channels' standard deviations, float64 (N,), of (N, H, W, 3) uint8 images.

    Sums are of integers, so that the result does not depend on the order of adding up.
    """
    count = pixels.shape[1] * pixels.shape[2]
    values = pixels.reshape(len(pixels), count, 3)
    total = values.sum(axis=1, dtype=np.int64)
    squares = np.einsum("npc,npc->nc", values, values, dtype=np.int64, casting="unsafe")
    variance = (count * squares - total * total) / float(count) ** 2
    return np.sqrt(variance.max(axis=1, initial=0.0))


def problems(
    pixels: np.ndarray, sizes: np.ndarray, level: str = "default", max_upscale: float | None = None
) -> list[str | None]:
    """Why each image is dropped, or None.

    Args:
        pixels: (N, S, S, 3) uint8, as decoded to size.
        sizes: (N, 2) int, width and height of the originals.
        level: ``default`` drops what is blank or near-constant, ``none`` does not.
        max_upscale: drop what was enlarged by more than this factor to reach S; None drops nothing.
    """
    reasons: list[str | None] = [None] * len(pixels)
    if level == "default":
        for row, value in enumerate(contrast(pixels)):
            if value < NEAR_CONSTANT_BELOW:
                reasons[row] = "blank" if value < BLANK_BELOW else "near-constant"
    if max_upscale is not None:
        factor = pixels.shape[1] / np.maximum(1, sizes.min(axis=1))
        for large in np.flatnonzero(factor > max_upscale).tolist():
            reasons[large] = reasons[large] or "enlarged too much"
    return reasons
