"""Whether two pictures are the same one: correlation after the best alignment over mirror, shift and scale.

Luminance is band-passed (smoothed, less its 9x9 local mean), which removes what brightness, contrast and shading change
and what unrelated pictures share (a light sky over dark ground). A 24x24 window of one image, at every shift of up to
4 pixels and mirrored or not, is correlated with the middle of the other at five scales. Both sides are rounded to whole
numbers whose products and sums float32 holds exactly, so a similarity does not depend on batches or threads.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from curate.fingerprints import SIDE, canonical, luminance

WINDOW = 24
SHIFTS = SIDE - WINDOW + 1
SCALES = (18.0, 21.0, 24.0, 28.0, 32.0)  # how many pixels of the second image the window covers, each way

_AREA = WINDOW * WINDOW
_TEMPLATE_UNIT = 480  # the length of a template in int8: 20 levels at each pixel's root mean square
_WINDOW_UNIT = 4096  # 480 * 4096 < 2^21: sums of products are exact in float32
_ONE = 256  # what the resampling weights sum to; 255 * 256^2 < 2^24
_FAINT = 20.0 * _ONE**2  # a texture of this length (0.8 grey levels at each pixel) counts half
_TEMPLATE_BATCH = 2048


def templates(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) -> int8 (N, 5, 576): the middle of each image at each scale, band-passed, of length 480."""
    out = np.empty((len(images), len(SCALES), _AREA), np.int8)
    for start in range(0, len(images), _TEMPLATE_BATCH):
        grey = luminance(canonical(images[start : start + _TEMPLATE_BATCH]))
        for k, (smooth, mean) in enumerate(_TEMPLATE_WEIGHTS):
            band = (smooth @ grey @ smooth.T - mean @ grey @ mean.T).reshape(len(grey), _AREA)
            unit = _unit(band, _TEMPLATE_UNIT)
            out[start : start + len(grey), k] = np.clip(unit, -127, 127)
    return out


def windows(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) -> float32 (N, 162, 576) whole numbers: every window, then every window of the mirrored."""
    smooth, mean = _WINDOW_WEIGHTS
    grey = luminance(canonical(images))
    band = smooth @ grey @ smooth.T - mean @ grey @ mean.T
    band = np.stack([band, band[:, :, ::-1]], axis=1)
    view = sliding_window_view(band, (WINDOW, WINDOW), axis=(2, 3))
    return _unit(view.reshape(-1, _AREA), _WINDOW_UNIT).reshape(len(images), 2 * SHIFTS**2, _AREA)


def correlate(window: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Best correlation over alignments: float32 (162, 576) windows of one image, int8 (K, 5, 576) templates -> (K,)."""
    product = template.reshape(-1, _AREA).astype(np.float32) @ window.T
    return product.max(axis=1).reshape(len(template), -1).max(axis=1) / np.float32(_TEMPLATE_UNIT * _WINDOW_UNIT)


def aligned_similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Similarity of a[i] and b[i], float32 (N,), about 1 for the same picture; a and b are uint8 (N, H, W, 3).

    The windows come from `a` and the templates from `b`; swapping them changes little, and not nothing.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} images cannot be paired with {len(b)}")
    out = np.empty(len(a), np.float32)
    for start in range(0, len(a), 64):
        left, right = windows(a[start : start + 64]), templates(b[start : start + 64])
        for row in range(len(left)):
            out[start + row] = correlate(left[row], right[row : row + 1])[0]
    return out


def _unit(band: np.ndarray, unit: int) -> np.ndarray:
    """Rows of whole numbers, less their mean, at length `unit`, rounded; faint rows are shorter."""
    total = band.sum(axis=1, dtype=np.float64, keepdims=True)
    centred = band - (total / _AREA).astype(np.float32)
    square = np.einsum("nd,nd->n", centred, centred, dtype=np.float64)
    return np.rint(centred * (unit / (np.sqrt(square) + _FAINT)).astype(np.float32)[:, None])


def _weights(scale: float, size: int, start: float) -> tuple[np.ndarray, np.ndarray]:
    """(size, 32) whole weights along one axis: of the smoothed, resampled image, and of its local mean.

    Output pixel i lies at `start + scale * (i + 0.5)` of the input; its kernel is a triangle about two output pixels
    wide, the local mean spans nine.
    """
    reach = np.arange(-4, size + 4)
    centre = start + scale * (reach + 0.5)
    position = np.arange(-SIDE, 2 * SIDE) + 0.5
    kernel = np.maximum(0, 1 - np.abs(position - centre[:, None]) / (2 * max(scale, 1.0)))
    kernel /= kernel.sum(axis=1, keepdims=True)
    inside = np.zeros((len(kernel), SIDE))
    np.add.at(inside.T, np.clip(position.astype(np.int64) - (position < 0), 0, SIDE - 1), kernel.T)  # edges repeat
    mean = np.stack([inside[i : i + 9].mean(axis=0) for i in range(size)])
    return _whole(inside[4:-4]), _whole(mean)


def _whole(weight: np.ndarray) -> np.ndarray:
    """Rows rounded to whole numbers that sum to 256, the rounding error put on the largest; symmetric under mirroring."""
    weight = np.rint(_ONE * weight)
    for row in weight:
        row[np.argmax(row)] += _ONE - row.sum()
    half = (len(weight) + 1) // 2
    weight[-half:] = weight[:half][::-1, ::-1]
    return weight.astype(np.float32)


_TEMPLATE_WEIGHTS = [_weights(s / WINDOW, WINDOW, (SIDE - s) / 2) for s in SCALES]
_WINDOW_WEIGHTS = _weights(1.0, SIDE, 0.0)
