"""Digests and copy descriptors, on tiles of scikit-learn's photographs."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from curate.fingerprints import (
    DIMENSIONS,
    canonical,
    copy_descriptor,
    flip_descriptor,
    pixel_sha256,
    without_frame,
)


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    """260 different 32x32 tiles of two photographs."""
    cut = [
        photo[top : top + 32, left : left + 32]
        for photo in load_sample_images().images
        for top in range(0, 400, 40)
        for left in range(0, 600, 46)
    ]
    return np.stack(cut).astype(np.uint8)


def test_pixel_sha256_covers_shape_and_pixels(tiles: np.ndarray) -> None:
    digests = pixel_sha256(tiles)
    assert len(set(digests)) == len({t.tobytes() for t in tiles})
    assert digests[0] == hashlib.sha256(b"32x32x3:" + tiles[0].tobytes()).digest()
    assert pixel_sha256(tiles[:1].reshape(1, 16, 64, 3)) != digests[:1]
    changed = tiles[:1].copy()
    changed[0, 31, 31, 2] ^= 1
    assert pixel_sha256(changed) != digests[:1]


def test_descriptor_has_unit_length_and_does_not_depend_on_the_batch(tiles: np.ndarray) -> None:
    whole = copy_descriptor(tiles)
    assert whole.shape == (len(tiles), DIMENSIONS) and whole.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=2e-3)
    np.testing.assert_array_equal(np.concatenate([copy_descriptor(t[None]) for t in tiles[:40]]), whole[:40])
    np.testing.assert_array_equal(copy_descriptor(np.repeat(tiles, 10, axis=0))[::10], whole)


def test_inner_products_are_exact_in_float32(tiles: np.ndarray) -> None:
    descriptor = copy_descriptor(tiles)
    exact = descriptor.astype(np.float64) @ descriptor.astype(np.float64).T
    np.testing.assert_array_equal((descriptor @ descriptor.T).astype(np.float64), exact)


def test_flip_descriptor_is_the_descriptor_of_the_flipped_image(tiles: np.ndarray) -> None:
    descriptor = copy_descriptor(tiles)
    np.testing.assert_array_equal(flip_descriptor(descriptor), copy_descriptor(tiles[:, :, ::-1]))
    np.testing.assert_array_equal(flip_descriptor(flip_descriptor(descriptor)), descriptor)


def test_a_brighter_or_shifted_image_is_among_the_nearest_of_its_original(tiles: np.ndarray) -> None:
    tiles = tiles[tiles.std(axis=(1, 2, 3)) > 20]  # plain sky is near to plain sky
    reference = copy_descriptor(tiles)
    brighter = np.clip(tiles * 1.2, 0, 255).astype(np.uint8)
    shifted = np.pad(tiles, ((0, 0), (2, 0), (0, 2), (0, 0)))[:, :32, 2:]
    for copy, least in ((brighter, 0.98), (shifted, 0.9)):
        similarity = copy_descriptor(copy) @ reference.T
        rank = (similarity > np.diag(similarity)[:, None]).sum(axis=1)
        assert (rank < 10).mean() >= least


def test_a_plain_frame_is_replaced_by_what_it_surrounds() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    framed = image.copy()
    framed[:, :3] = 0
    framed[:, :, -2:] = 0
    kept = framed.copy()
    opened = without_frame(framed)
    np.testing.assert_array_equal(framed, kept)  # the caller's array is left alone
    np.testing.assert_array_equal(opened[0, 4:, :29], image[0, 4:, :29])
    assert (opened[0, :4, :29] == image[0, 4, :29]).all()
    assert (opened[0, 4:, 29:] == image[0, 4:, 28:29]).all()
    np.testing.assert_array_equal(without_frame(image), image)


def test_larger_images_come_to_the_same_grid(tiles: np.ndarray) -> None:
    double = np.repeat(np.repeat(tiles[:20], 2, axis=1), 2, axis=2)
    small = canonical(double)
    assert small.shape == (20, 32, 32, 3)
    assert np.abs(small.astype(int) - tiles[:20]).mean() < 8  # Pillow's triangle filter smooths a little
    assert ((copy_descriptor(double) * copy_descriptor(tiles[:20])).sum(axis=1) > 0.9).all()


def test_other_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        copy_descriptor(np.zeros((2, 32, 32, 3), np.float32))
    with pytest.raises(ValueError, match="uint8"):
        pixel_sha256(np.zeros((32, 32, 3), np.uint8))
