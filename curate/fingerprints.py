"""What identifies a picture: a digest of its exact pixels, and a descriptor that survives copying.

The copy descriptor is spatial: orientation energies of the smoothed luminance pooled into 4x4 cells (after Dalal and
Triggs, "Histograms of Oriented Gradients", CVPR 2005, without the block normalisation), and luminance and chroma pooled
into as many. Cells overlap and the outermost pixels weigh little, so a shift of a few pixels, a crop or a thin frame
leaves most of it in place.

Every sum here runs over whole numbers that float32 or float64 hold exactly, so an image has the same descriptor in any
batch, on any number of threads, and inner products of descriptors are exact too.
"""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image

SIDE = 32  # the canonical grid, pixels
ORIENTATIONS = 6  # unsigned, 30 degrees apart
CELLS = 4
COLOUR_CELLS = 4
UNIT = 2048  # descriptors are multiples of 1 / UNIT: products are multiples of 2^-22 and at most 1, exact in float32
COLOUR_WEIGHT = 0.7
DIMENSIONS = ORIENTATIONS * CELLS**2 + 3 * COLOUR_CELLS**2

_BATCH = 2048
_MARGIN = 2  # the outermost pixels: frames, shadows of resampling
_FRAME = 5  # the widest plain frame that is taken off, pixels
_FRAME_TOLERANCE = 6.0  # mean absolute deviation within a line of a frame, grey levels: JPEG leaves some


def pixel_sha256(images: np.ndarray) -> list[bytes]:
    """SHA-256 (32 bytes) of each image's shape and pixels; `images` is uint8 (N, H, W, 3)."""
    images = _checked(images)
    prefix = ("x".join(str(n) for n in images.shape[1:]) + ":").encode()
    return [hashlib.sha256(prefix + np.ascontiguousarray(image).tobytes()).digest() for image in images]


def canonical(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) -> uint8 (N, 32, 32, 3): resampled with Pillow's antialiased bilinear filter if it must be."""
    images = _checked(images)
    if images.shape[1:3] == (SIDE, SIDE):
        return np.ascontiguousarray(images)
    out = np.empty((len(images), SIDE, SIDE, 3), np.uint8)
    for row, image in enumerate(images):
        picture = Image.fromarray(np.ascontiguousarray(image))
        out[row] = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return out


def copy_descriptor(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) -> (N, 144) float32, of unit length to within 1e-3; compare with inner products.

    The same image gives the same bits whatever batch it comes in.
    """
    images = _checked(images)
    out = np.empty((len(images), DIMENSIONS), np.float32)
    for start in range(0, len(images), _BATCH):
        out[start : start + _BATCH] = _describe(without_frame(canonical(images[start : start + _BATCH])))
    return out


def flip_descriptor(descriptors: np.ndarray) -> np.ndarray:
    """The descriptors of the mirrored images, (N, 144) -> (N, 144): mirroring permutes cells and orientations."""
    return descriptors[:, MIRRORED]


def without_frame(images: np.ndarray) -> np.ndarray:
    """Replace plain frames of up to 5 pixels (padding after a shift, a drawn border) by the pixels inside them.

    `images` is uint8 (N, 32, 32, 3). A picture with a plain background loses nothing by it.
    """
    for axis in (1, 2):
        for reverse in (False, True):
            lines = np.moveaxis(images, axis, 1)[:, :: -1 if reverse else 1]
            width = _frame_width(lines[:, :_FRAME].astype(np.int32))
            framed = np.flatnonzero(width)
            if len(framed):
                images = images.copy()
                lines = np.moveaxis(images, axis, 1)[:, :: -1 if reverse else 1]
                source = np.maximum(np.arange(SIDE)[None], width[framed, None] + 1)  # one more: JPEG and filters smear
                lines[framed] = lines[framed[:, None], source]
    return images


def exact_unit(whole: np.ndarray, floor: float = 0.0, unit: int = UNIT) -> np.ndarray:
    """Rows of whole numbers (N, D) scaled to length `unit` and rounded, as float64; `floor` shrinks faint rows."""
    whole = whole.astype(np.float64)
    length = np.sqrt(np.einsum("nd,nd->n", whole, whole)) + floor
    return np.rint(whole * (unit / np.maximum(length, 1e-9))[:, None])


def _checked(images: np.ndarray) -> np.ndarray:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"images must be uint8 (N, H, W, 3), not {images.dtype} {images.shape}")
    return images


def _frame_width(lines: np.ndarray) -> np.ndarray:
    """(N, 5, 32, 3) lines from the edge inwards -> (N,) how many of them form a plain frame."""
    colour = lines[:, :1].sum(axis=2, keepdims=True) // SIDE
    plain = np.abs(lines - colour).sum(axis=(2, 3)) <= _FRAME_TOLERANCE * SIDE * 3
    return np.minimum.accumulate(plain, axis=1).sum(axis=1)


def _pooling(cells: int) -> np.ndarray:
    """(cells, 32) float32 whole weights: overlapping triangles, symmetric, each summing to about 32."""
    width = (SIDE - 2 * _MARGIN) / cells
    centre = _MARGIN + (np.arange(cells) + 0.5) * width
    weight = np.maximum(0, 1 - np.abs(np.arange(SIDE) + 0.5 - centre[:, None]) / (1.3 * width))
    weight[:, : _MARGIN - 1] = weight[:, SIDE - _MARGIN + 1 :] = 0
    weight = np.rint(32 * weight / weight.sum(axis=1, keepdims=True))
    return np.minimum(weight, weight[::-1, ::-1]).astype(np.float32)


_CELL_POOL = _pooling(CELLS)
_COLOUR_POOL = _pooling(COLOUR_CELLS)
_ANGLE = np.pi * np.arange(ORIENTATIONS) / ORIENTATIONS
_DIRECTION = np.rint(16 * np.stack([np.cos(_ANGLE), np.sin(_ANGLE)], axis=1)).astype(np.float32)


def _flip_order() -> np.ndarray:
    edges = np.arange(ORIENTATIONS * CELLS**2).reshape(ORIENTATIONS, CELLS, CELLS)
    edges = edges[-np.arange(ORIENTATIONS) % ORIENTATIONS, :, ::-1]
    colour = np.arange(ORIENTATIONS * CELLS**2, DIMENSIONS).reshape(3, COLOUR_CELLS, COLOUR_CELLS)[:, :, ::-1]
    return np.concatenate([edges.ravel(), colour.ravel()])


MIRRORED = _flip_order()


def _pool(maps: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return weight @ maps @ weight.T


def luminance(images: np.ndarray) -> np.ndarray:
    """uint8 (..., 3) -> float32 (...) whole numbers 0..255 (Rec. 601 weights in 256ths)."""
    red, green, blue = (images[..., k].astype(np.float32) for k in range(3))
    return np.floor((77 * red + 150 * green + 29 * blue) / 256)  # exact: all are below 2^24


def _describe(images: np.ndarray) -> np.ndarray:
    count = len(images)
    grey = luminance(images)
    padded = np.pad(grey, ((0, 0), (2, 2), (2, 2)), mode="edge")
    smooth = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    smooth = smooth[:, :, :-2] + 2 * smooth[:, :, 1:-1] + smooth[:, :, 2:]  # (N, 34, 34), 16 times the grey levels
    dy = smooth[:, 2:, 1:-1] - smooth[:, :-2, 1:-1]
    dx = smooth[:, 1:-1, 2:] - smooth[:, 1:-1, :-2]
    energy = np.stack([np.floor(np.abs(c * dx + s * dy) / 64) for c, s in _DIRECTION], axis=1)
    edges = np.rint(4 * np.sqrt(_pool(energy, _CELL_POOL)))  # the root keeps one strong edge from ruling the rest
    edges = ORIENTATIONS * edges - edges.sum(axis=1, keepdims=True)

    x = images.astype(np.float32)
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    chroma = np.stack([2 * blue - red - green, 2 * red - 2 * green], axis=1)
    chroma = _pool(chroma, _COLOUR_POOL).reshape(count, -1)
    light = _pool(grey, _COLOUR_POOL).reshape(count, -1)
    light = light.shape[1] * light - light.sum(axis=1, keepdims=True)
    parts = [
        exact_unit(edges.reshape(count, -1), floor=24.0),
        np.rint(COLOUR_WEIGHT * exact_unit(chroma, floor=2 * 60 * 1024.0)),
        np.rint(COLOUR_WEIGHT * exact_unit(light, floor=16 * 60 * 1024.0)),
    ]
    return (exact_unit(np.concatenate(parts, axis=1)) / UNIT).astype(np.float32)
