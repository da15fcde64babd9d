"""Order and augmentation of the batches, against brute force."""

from __future__ import annotations

import numpy as np
import torch

from train.batches import (
    ID_AUGMENTATION,
    OUTLIER_AUGMENTATION,
    augment,
    id_rows,
    normalise,
    outlier_rows,
    steps_per_epoch,
)
from train.id_sets import validation_split


def test_every_id_image_is_seen_once_an_epoch():
    steps = steps_per_epoch(103, 10)
    assert steps == 11
    epochs = []
    for epoch in range(3):
        batches = [id_rows(epoch * steps + step, 103, 10, seed=0) for step in range(steps)]
        assert [len(batch) for batch in batches] == [10] * 10 + [3]
        epochs.append(torch.cat(batches).tolist())
        assert sorted(epochs[-1]) == list(range(103))
    assert epochs[0] != epochs[1] != epochs[2]
    assert steps_per_epoch(100, 10) == 10


def test_outliers_cycle_and_are_shuffled_anew():
    stream = torch.cat([outlier_rows(step, 23, 7, seed=0) for step in range(23)]).tolist()
    cycles = [stream[start : start + 23] for start in range(0, 161, 23)]
    assert len(cycles) == 7
    assert all(sorted(cycle) == list(range(23)) for cycle in cycles)
    assert len({tuple(cycle) for cycle in cycles}) == 7
    few = outlier_rows(3, 4, 10, seed=0).tolist()  # fewer outliers than a batch: positions 30..39 of the stream
    assert sorted(few[2:6]) == sorted(few[6:10]) == [0, 1, 2, 3]


def test_order_depends_on_the_seed_and_the_purpose_only():
    assert torch.equal(id_rows(5, 100, 10, seed=1), id_rows(5, 100, 10, seed=1))
    assert not torch.equal(id_rows(5, 100, 10, seed=1), id_rows(5, 100, 10, seed=2))
    assert not torch.equal(id_rows(0, 100, 10, seed=1), outlier_rows(0, 100, 10, seed=1))


def test_every_augmented_image_is_a_padded_crop_of_its_own_image():
    images = torch.randint(0, 256, (400, 6, 5, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen: dict[tuple[int, int, bool], int] = {}
    result = augment(images, 2, 7, ID_AUGMENTATION, 3)
    for image, got in zip(images.numpy(), result.numpy(), strict=True):
        found = []
        for flip in (False, True):
            padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
            for y in range(5):
                for x in range(5):
                    crop = padded[y : y + 6, x : x + 5]
                    if np.array_equal(crop[:, ::-1] if flip else crop, got):
                        found.append((y, x, flip))
        assert len(found) == 1
        seen[found[0]] = seen.get(found[0], 0) + 1
    assert {key[:2] for key in seen} == {(y, x) for y in range(5) for x in range(5)}
    flips = sum(count for key, count in seen.items() if key[2])
    assert 160 <= flips <= 240  # four standard deviations around half of 400


def test_augmentation_is_a_function_of_seed_purpose_and_step():
    images = torch.arange(4 * 8 * 8 * 3).reshape(4, 8, 8, 3).to(torch.uint8).repeat(8, 1, 1, 1)
    first = augment(images, 4, 0, ID_AUGMENTATION, 1)
    assert torch.equal(first, augment(images, 4, 0, ID_AUGMENTATION, 1))
    others = [(1, ID_AUGMENTATION, 1), (0, OUTLIER_AUGMENTATION, 1), (0, ID_AUGMENTATION, 2)]
    assert not any(torch.equal(first, augment(images, 4, *other)) for other in others)


def test_without_padding_there_is_only_the_flip():
    images = torch.arange(6).reshape(1, 1, 2, 3).to(torch.uint8).expand(50, 1, 2, 3)
    kinds = {tuple(image.flatten().tolist()) for image in augment(images, 0, 0, ID_AUGMENTATION, 0)}
    assert kinds == {(0, 1, 2, 3, 4, 5), (3, 4, 5, 0, 1, 2)}


def test_normalisation_against_numpy():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    expected = ((images / 255 - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)
    got = normalise(torch.from_numpy(images), mean, std)
    assert got.dtype == torch.float32
    assert got.is_contiguous()
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_validation_rows_are_a_share_of_each_class():
    labels = np.repeat([0, 1, 2, 3], [100, 40, 2, 1])
    train, held_out = validation_split(labels, 0.1, seed=3)
    assert np.array_equal(np.sort(np.r_[train, held_out]), np.arange(143))
    assert np.bincount(labels[held_out], minlength=4).tolist() == [10, 4, 1, 0]  # never all of a class
    assert np.array_equal(held_out, validation_split(labels, 0.1, seed=3)[1])
    assert not np.array_equal(held_out, validation_split(labels, 0.1, seed=4)[1])
    assert len(validation_split(labels, 0.0, seed=3)[1]) == 0
