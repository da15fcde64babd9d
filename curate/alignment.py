"""Whether two pictures are the same one: correlation after the best alignment over mirror, shift, scale and aspect.

Luminance is band-passed (smoothed, less its 9x9 local mean), which removes what brightness, contrast and shading change
and what unrelated pictures share (a light sky over dark ground). A 24x24 window of one image, at every shift of up to
4 pixels and mirrored or not, is correlated with the middle of the other at eleven scales; colour is compared where that
is best. Plain correlation is not enough: two aeroplanes on a plain sky reach 0.85 and are different, two crops of one
textured frog reach 0.8 and are the same. So a correlation is also read as a share of the way from `typical`, what the
image reaches with its nearest different pictures, to 1.

Both sides are rounded to whole numbers whose products and sums float32 holds exactly, so a similarity does not depend
on batches or threads.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from curate.fingerprints import SIDE, canonical, luminance

WINDOW = 24
SHIFTS = SIDE - WINDOW + 1
# How many pixels (down, across) of the second image the window covers. The first COARSE of them find the pairs that
# are worth the rest.
SCALES = (
    *((20.0, 20.0), (24.0, 24.0), (28.0, 28.0)),
    *((17.0, 17.0), (22.0, 22.0), (26.0, 26.0), (33.0, 33.0)),
    *((24.0, 21.5), (21.5, 24.0), (24.0, 27.0), (27.0, 24.0)),
)
COARSE = 3
FEW = 4  # images whose windows stay in a processor's cache
TYPICAL_RANGE = (0.3, 0.7)  # a typical correlation is kept within it: few candidates, or a group of copies, mislead
TYPICAL = 0.45  # where nothing else is known

AREA = WINDOW * WINDOW
ROUGH_AREA = AREA // 8  # of an even or odd part at half the resolution
_TEMPLATE_UNIT = 480  # the length of a template in int8: 20 levels at each pixel's root mean square
_WINDOW_UNIT = 4096  # 480 * 4096 < 2^21: sums of products are exact in float32
_ONE = 256  # what the resampling weights sum to; 255 * 256^2 < 2^24
_FAINT = 6.0 * _ONE**2  # a texture of this length (a quarter of a grey level at each pixel) counts half
_BATCH = 2048


def templates(images: np.ndarray, scales: int = len(SCALES)) -> np.ndarray:
    """uint8 (N, H, W, 3) -> int8 (N, S, 576): the middle of each image at the first S scales, band-passed, length 480.

    Of the 576 numbers the left half of the window comes first, and then the right half mirrored, both line by line.
    """
    out = np.empty((len(images), scales, AREA), np.int8)
    for start in range(0, len(images), _BATCH):
        grey = luminance(canonical(images[start : start + _BATCH]))
        for k, (down, across) in enumerate(_TEMPLATE_WEIGHTS[:scales]):
            unit = _unit(_band(grey, down, across).reshape(len(grey), AREA), _TEMPLATE_UNIT)
            halves = _halves(np.clip(unit, -127, 127).reshape(len(grey), WINDOW, WINDOW))
            out[start : start + len(grey), k] = np.concatenate(halves, axis=1)
    return out


def windows(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) -> float32 (N, 2, 81, 288) whole numbers: the even and the odd part of every window.

    The even part is the left half plus the mirrored right half, the odd part their difference. Mirroring a window
    keeps the one and turns the other's sign, so that products with both parts give those with the mirrored window too.
    """
    band = _band(luminance(canonical(images)), _WINDOW_WEIGHTS, _WINDOW_WEIGHTS)
    wide = band.astype(np.float64)
    total = _box(wide)
    length = np.sqrt(np.maximum(_box(wide * wide) - total**2 / AREA, 0))
    scale = (_WINDOW_UNIT / (length + _FAINT)).astype(np.float32)[..., None, None]
    mean = (total / AREA).astype(np.float32)[..., None, None]
    unit = sliding_window_view(band, (WINDOW, WINDOW), axis=(1, 2)) - mean
    np.rint(np.multiply(unit, scale, out=unit), out=unit)
    left, right = (half.reshape(len(images), SHIFTS**2, -1) for half in _halves(unit.reshape(-1, WINDOW, WINDOW)))
    return np.stack([left + right, left - right], axis=1)


def correlate(window: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Best correlation over windows, mirrored or not, and scales: float32 (2, 81, 288), int8 (K, S, 576) -> (K,)."""
    return _best(*_products(window, *_parts(template)), template.shape[1])


def rough_templates(template: np.ndarray) -> np.ndarray:
    """int8 (N, S, 576) -> int16 (N, S, 2, 72): even and odd part, summed over 2x2 pixels."""
    out = np.empty((*template.shape[:2], 2, ROUGH_AREA), np.int16)
    for start in range(0, len(template), _BATCH):
        rows = template[start : start + _BATCH]
        even, odd = (rough(part).reshape(*rows.shape[:2], -1) for part in _parts(rows))
        out[start : start + len(rows), :, 0], out[start : start + len(rows), :, 1] = even, odd
    return out


def rough(parts: np.ndarray) -> np.ndarray:
    """Even or odd parts (..., 288), summed over 2x2 pixels, (..., 72)."""
    rows = parts.reshape(*parts.shape[:-1], WINDOW, WINDOW // 2)
    rows = rows[..., 0::2, :] + rows[..., 1::2, :]
    return (rows[..., 0::2] + rows[..., 1::2]).reshape(*parts.shape[:-1], -1)


def rough_correlate(window: np.ndarray, template: np.ndarray) -> np.ndarray:
    """As `correlate`, at half the resolution: `rough` windows (2, 81, 72), int16 (K, S, 2, 72) -> (K,).

    It is less than the correlation where pictures agree in their fine detail too.
    """
    even, odd = np.ascontiguousarray(template.reshape(-1, 2, ROUGH_AREA).transpose(1, 0, 2), np.float32)
    return _best(*_products(window, even, odd), template.shape[1]) / np.float32(4)


def align(window: np.ndarray, template: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `correlate`, with the place: (correlation (K,), window (K,), scale (K,)) of the best alignment.

    Windows are counted over all shifts of the image, and then over those of the mirrored one.
    """
    even, odd = _products(window, *_parts(template))
    mirrored = (even - odd).reshape(-1, SHIFTS, SHIFTS)[:, :, ::-1]  # by where they lie in the mirrored image
    product = np.concatenate([even + odd, mirrored.reshape(even.shape)], axis=1)
    product = product.reshape(len(template), template.shape[1] * 2 * SHIFTS**2)
    best = product.argmax(axis=1)
    scale, place = np.divmod(best, 2 * SHIFTS**2)
    value = product[np.arange(len(best)), best] / np.float32(2 * _TEMPLATE_UNIT * _WINDOW_UNIT)
    return value, place, scale


def _parts(template: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 (K, S, 576) -> even and odd part, (K * S, 288) float32 each."""
    halves = template.reshape(-1, 2, AREA // 2)
    even = np.add(halves[:, 0], halves[:, 1], dtype=np.float32)
    return even, np.subtract(halves[:, 0], halves[:, 1], dtype=np.float32)


def _products(window: np.ndarray, even: np.ndarray, odd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Products of even parts and of odd parts with windows, (K * S, 81) each: exact, as sums stay below 2^24."""
    return even @ window[0].T, odd @ window[1].T


def _best(even: np.ndarray, odd: np.ndarray, scales: int) -> np.ndarray:
    """The largest of the products with windows and mirrored windows over all shifts and scales, as correlation (K,)."""
    even += np.abs(odd, out=odd)
    best = even.max(axis=1).reshape(-1, scales).max(axis=1)
    return best / np.float32(2 * _TEMPLATE_UNIT * _WINDOW_UNIT)


def _halves(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The left half of each map (N, 24, 24), and its right half mirrored, (N, 288) both."""
    half = WINDOW // 2
    return maps[:, :, :half].reshape(len(maps), -1), maps[:, :, : -half - 1 : -1].reshape(len(maps), -1)


def colour_correlation(a: np.ndarray, b: np.ndarray, place: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Correlation of band-passed luminance and chroma together at known alignments, float32 (N,).

    `a` and `b` are uint8 (N, 32, 32, 3), `place` and `scale` as `align` gives them.
    """
    out = np.empty(len(a), np.float32)
    for start in range(0, len(a), _BATCH):
        rows = slice(start, start + _BATCH)
        out[rows] = _colour_correlation(a[rows], b[rows], place[rows], scale[rows])
    return out


def similarity(correlation: np.ndarray, colour: np.ndarray, typical: np.ndarray | float) -> np.ndarray:
    """How surely a pair is the same picture: float32, 1 for identical ones.

    The mean of both correlations, and, at half its weight, the mean of their shares of the way from `typical` to 1.
    """
    typical = np.clip(np.asarray(typical, np.float32), *TYPICAL_RANGE, dtype=np.float32)
    mean = (correlation + colour) / np.float32(2)
    return (np.float32(2) * mean + (mean - typical) / (np.float32(1) - typical)) / np.float32(3)


def aligned_similarity(a: np.ndarray, b: np.ndarray, typical: np.ndarray | float = TYPICAL) -> np.ndarray:
    """Similarity of a[i] and b[i], float32 (N,), about 1 for the same picture; a and b are uint8 (N, H, W, 3).

    `typical` is the correlation of a[i] with its nearest different pictures, where it is known. The windows come from
    `a` and the templates from `b`; swapping them changes little, and not nothing.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} images cannot be paired with {len(b)}")
    a, b = canonical(a), canonical(b)
    value, place, scale = np.empty(len(a), np.float32), np.empty(len(a), np.int64), np.empty(len(a), np.int64)
    with threadpool_limits(1, "blas"):  # the products are small: more threads only wait for each other
        for start in range(0, len(a), FEW):
            left, right = windows(a[start : start + FEW]), templates(b[start : start + FEW])
            for row in range(len(left)):
                found = align(left[row], right[row : row + 1])
                value[start + row], place[start + row], scale[start + row] = (x[0] for x in found)
    return similarity(value, colour_correlation(a, b, place, scale), typical)


def _colour_correlation(a: np.ndarray, b: np.ndarray, place: np.ndarray, scale: np.ndarray) -> np.ndarray:
    left = _band(_channels(a), _WINDOW_WEIGHTS, _WINDOW_WEIGHTS)
    mirrored, shift = np.divmod(place, SHIFTS**2)
    left[mirrored == 1] = left[mirrored == 1, :, :, ::-1]
    top, across = np.divmod(shift, SHIFTS)
    view = sliding_window_view(left, (WINDOW, WINDOW), axis=(2, 3))
    left = view[np.arange(len(a)), :, top, across].reshape(len(a), 3, AREA).astype(np.float64)
    right = np.empty((len(b), 3, AREA))
    channels = _channels(b)
    for k in np.unique(scale):
        rows = scale == k
        right[rows] = _band(channels[rows], *_TEMPLATE_WEIGHTS[k]).reshape(-1, 3, AREA)
    # Whole numbers: sums below 2^53 are exact in float64.
    count = np.float64(AREA)
    sums = [x.sum(axis=2) for x in (left, right)]
    products = [np.einsum("nca,nca->nc", x, y) for x, y in ((left, right), (left, left), (right, right))]
    cross = (count * products[0] - sums[0] * sums[1]).sum(axis=1)
    length = [(count * products[k + 1] - sums[k] ** 2).sum(axis=1) for k in (0, 1)]
    floor = np.sqrt(count) * _FAINT
    return (cross / ((np.sqrt(length[0]) + floor) * (np.sqrt(length[1]) + floor))).astype(np.float32)


def _channels(images: np.ndarray) -> np.ndarray:
    """uint8 (N, 32, 32, 3) -> float32 (N, 3, 32, 32) whole numbers: luminance, blue and red difference."""
    out = np.empty((len(images), 3, SIDE, SIDE), np.float32)
    red, green, blue = np.ascontiguousarray(images.transpose(3, 0, 1, 2)).astype(np.float32)
    out[:, 0] = luminance(images)
    np.floor((2 * blue - red - green) / 4, out=out[:, 1])
    np.floor((red - green) / 2, out=out[:, 2])
    return out


def _band(maps: np.ndarray, down: tuple[np.ndarray, np.ndarray], across: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Resampled and smoothed maps less their local mean, in whole 65536ths of a level."""
    return down[0] @ maps @ across[0].T - down[1] @ maps @ across[1].T


def _box(maps: np.ndarray) -> np.ndarray:
    """The sum over every window, (N, 32, 32) -> (N, 9, 9)."""
    c = np.pad(maps.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))
    return c[:, WINDOW:, WINDOW:] - c[:, :-WINDOW, WINDOW:] - c[:, WINDOW:, :-WINDOW] + c[:, :-WINDOW, :-WINDOW]


def _unit(band: np.ndarray, unit: int) -> np.ndarray:
    """Rows of whole numbers, less their mean, at length `unit`, rounded; faint rows are shorter."""
    total = band.sum(axis=1, dtype=np.float64, keepdims=True)
    square = np.einsum("nd,nd->n", band, band, dtype=np.float64) - total[:, 0] ** 2 / AREA
    scale = (unit / (np.sqrt(np.maximum(square, 0)) + _FAINT)).astype(np.float32)
    return np.rint((band - (total / AREA).astype(np.float32)) * scale[:, None])


def axis_weights(scale: float, size: int, start: float, span: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """(size, 32) whole weights along one axis: of the smoothed, resampled image, and of its local mean.

    Output pixel i lies at `start + scale * (i + 0.5)` of the input; its kernel is a triangle about two output pixels
    wide, the local mean spans `span`, an odd number.
    """
    half = span // 2
    reach = np.arange(-half, size + half)
    centre = start + scale * (reach + 0.5)
    position = np.arange(-SIDE, 2 * SIDE) + 0.5
    kernel = np.maximum(0, 1 - np.abs(position - centre[:, None]) / (2 * max(scale, 1.0)))
    kernel /= kernel.sum(axis=1, keepdims=True)
    inside = np.zeros((len(kernel), SIDE))
    np.add.at(inside.T, np.clip(position.astype(np.int64) - (position < 0), 0, SIDE - 1), kernel.T)  # edges repeat
    mean = np.stack([inside[i : i + span].mean(axis=0) for i in range(size)])
    return _whole(inside[half:-half]), _whole(mean)


def _whole(weight: np.ndarray) -> np.ndarray:
    """Rows rounded to whole numbers that sum to 256, the error put on the largest; symmetric under mirroring."""
    weight = np.rint(_ONE * weight)
    for row in weight:
        row[np.argmax(row)] += _ONE - row.sum()
    half = (len(weight) + 1) // 2
    weight[-half:] = weight[:half][::-1, ::-1]
    return weight.astype(np.float32)


_TEMPLATE_WEIGHTS = [tuple(axis_weights(s / WINDOW, WINDOW, (SIDE - s) / 2) for s in pair) for pair in SCALES]
_WINDOW_WEIGHTS = axis_weights(1.0, SIDE, 0.0)
