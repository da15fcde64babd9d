"""A quick look at whether two pictures may be the same one, before `curate.alignment` decides.

It is the same comparison at half the resolution: luminance, smoothed, less its local mean; a 12x12 window of one image
at every shift of up to 2 of 16 pixels, mirrored or not, is correlated with the middle of the other at three scales.

All numbers are whole, so that a correlation does not depend on batches, threads or the processor.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from curate.alignment import axis_weights
from curate.fingerprints import SIDE, canonical, luminance

PROMISING = 0.75  # a correlation from which a pair is worth aligning

_GRID, _WINDOW, _SHIFTS = 16, 12, 5
_AREA = _WINDOW * _WINDOW
_SCALES = (24.0, 20.0, 28.0)  # pixels of the second image that the window covers
_SPAN = 5  # of the grid, the local mean
_TEMPLATE_UNIT, _WINDOW_UNIT = 480, 4096  # lengths: sums of products are exact in float32
_FAINT = 3.0 * 256  # a texture of this length counts half
_BATCH = 512


def templates(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) -> int16 (N, 2, 3, 72): the middle of each image at three scales, even and odd parts."""
    out = np.empty((len(images), 2, len(_SCALES), _AREA // 2), np.int16)
    for start in range(0, len(images), _BATCH):
        grey = luminance(canonical(images[start : start + _BATCH]))
        for k, (kernel, mean) in enumerate(_TEMPLATE_WEIGHTS):
            band = _band(grey, kernel, mean).reshape(len(grey), _AREA)
            out[start : start + len(grey), :, k] = _parts(_unit(band, _TEMPLATE_UNIT))
    return out


def windows(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) -> float32 (N, 2, 72, 25): every window, even and odd parts."""
    out = np.empty((len(images), 2, _AREA // 2, _SHIFTS**2), np.float32)
    for start in range(0, len(images), _BATCH):
        band = _band(luminance(canonical(images[start : start + _BATCH])), *_WINDOW_WEIGHTS)
        view = sliding_window_view(band, (_WINDOW, _WINDOW), axis=(1, 2)).reshape(-1, _AREA)
        parts = _parts(_unit(view, _WINDOW_UNIT)).reshape(len(band), _SHIFTS**2, 2, -1)
        out[start : start + len(band)] = parts.transpose(0, 2, 3, 1)
    return out


def correlate(window: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Best correlation over windows, mirrored or not, and scales: float32 (2, 72, 25), (K, 2, 3, 72) -> (K,)."""
    even = template[:, 0].reshape(-1, _AREA // 2).astype(np.float32) @ window[0]
    odd = template[:, 1].reshape(-1, _AREA // 2).astype(np.float32) @ window[1]
    even += np.abs(odd, out=odd)
    best = even.reshape(len(template), len(_SCALES) * _SHIFTS**2).max(axis=1)
    return best / np.float32(2 * _TEMPLATE_UNIT * _WINDOW_UNIT)


def _band(grey: np.ndarray, kernel: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Resampled and smoothed maps less their local mean, in whole 256ths of a level."""
    return np.rint((kernel @ grey @ kernel.T - mean @ grey @ mean.T) / np.float32(256))


def _unit(band: np.ndarray, unit: int) -> np.ndarray:
    """Rows of whole numbers, less their mean, at length `unit`, rounded; faint rows are shorter."""
    wide = band.astype(np.float64)  # sums below 2^53: exact in any order
    total = wide.sum(axis=1, keepdims=True)
    square = np.einsum("nd,nd->n", wide, wide)[:, None] - total**2 / _AREA
    return np.rint((wide - total / _AREA) * (unit / (np.sqrt(np.maximum(square, 0)) + _FAINT)))


def _parts(rows: np.ndarray) -> np.ndarray:
    """(N, 144) -> (N, 2, 72): left half plus the mirrored right half, and their difference."""
    maps = rows.reshape(len(rows), _WINDOW, _WINDOW)
    left = maps[:, :, : _WINDOW // 2].reshape(len(rows), -1)
    right = maps[:, :, : -_WINDOW // 2 - 1 : -1].reshape(len(rows), -1)
    return np.stack([left + right, left - right], axis=1)


_TEMPLATE_WEIGHTS = [axis_weights(s / _WINDOW, _WINDOW, (SIDE - s) / 2, _SPAN) for s in _SCALES]
_WINDOW_WEIGHTS = axis_weights(SIDE / _GRID, _GRID, 0.0, _SPAN)
