"""Order and augmentation of the batches, against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from srood.errors import InputError
from train import batches
from train.batches import (
    ID_AUGMENTATION,
    OUTLIER_AUGMENTATION,
    augment,
    normalise,
    steps_per_epoch,
    stream_rows,
)
from train.config import TuneConfig
from train.id_sets import validation_split
from train.plan import Plan, shares_of


def _plan(id_count: int, outliers: tuple[int, ...] = (), shares: tuple[int, ...] = (), **settings) -> Plan:
    return Plan(TuneConfig(**settings), id_count, outliers, shares)


def test_every_id_image_is_seen_once_an_epoch():
    plan = _plan(103, batch_size=10, epochs=3)
    assert (plan.epoch_steps, plan.total, plan.scheduled) == (11, 33, 33)
    epochs = []
    for epoch in range(3):
        rows = [plan.rows(epoch * 11 + step).id for step in range(11)]
        assert [len(batch) for batch in rows] == [10] * 10 + [3]
        epochs.append(torch.cat(rows).tolist())
        assert sorted(epochs[-1]) == list(range(103))
    assert epochs[0] != epochs[1] != epochs[2]
    assert steps_per_epoch(100, 10) == 10
    assert _plan(103, batch_size=10, max_steps=7).total == 7


def test_outliers_cycle_and_are_shuffled_anew():
    plan = _plan(1000, (23,), (7,))
    stream = torch.cat([plan.rows(step).outliers for step in range(23)]).tolist()
    cycles = [stream[start : start + 23] for start in range(0, 161, 23)]
    assert len(cycles) == 7
    assert all(sorted(cycle) == list(range(23)) for cycle in cycles)
    assert len({tuple(cycle) for cycle in cycles}) == 7
    few = stream_rows(3, 4, 10, 0, (0, 0), stored=False).tolist()  # fewer than a batch: positions 30..39 of the stream
    assert sorted(few[2:6]) == sorted(few[6:10]) == [0, 1, 2, 3]


def test_stored_order_is_that_of_the_set():
    plan = _plan(1000, (5,), (3,), outlier_order="stored")
    assert [plan.rows(step).outliers.tolist() for step in range(3)] == [[0, 1, 2], [3, 4, 0], [1, 2, 3]]


def test_an_epoch_can_end_with_the_outliers():
    plan = _plan(100, (23,), (7,), batch_size=10, epochs=3, epoch_ends_with="shorter")
    assert (plan.epoch_steps, plan.total, plan.scheduled) == (4, 12, 30)  # the schedule counts the ID images' 10 steps
    for epoch in range(3):
        rows = [plan.rows(4 * epoch + step) for step in range(4)]
        assert [len(r.outliers) for r in rows] == [7, 7, 7, 2]
        assert sorted(torch.cat([r.outliers for r in rows]).tolist()) == list(range(23))
        assert len(set(torch.cat([r.id for r in rows]).tolist())) == 40  # 60 ID images are not seen
    assert _plan(100, (230,), (7,), batch_size=10, epoch_ends_with="shorter").epoch_steps == 10


def test_several_sets_share_a_batch_by_weight():
    assert shares_of([1, 0.5], 256) == (171, 85)
    assert shares_of([1, 1, 1], 10) == (3, 4, 3)
    with pytest.raises(InputError, match="set 2 of 2 would get none of the 8"):
        shares_of([1, 0.01], 8)
    plan = _plan(100, (6, 9), (4, 2))
    rows = [plan.rows(step).outliers for step in range(9)]
    assert all((r[:3] < 6).sum() == 2 == (r[3:] < 6).sum() and (r < 15).all() for r in rows)  # mixed: each half alike
    drawn = torch.cat(rows)
    assert sorted(drawn[drawn < 6].tolist()) == sorted(list(range(6)) * 6)
    assert sorted(drawn[drawn >= 6].tolist()) == sorted(list(range(6, 15)) * 2)


def test_an_epoch_draws_from_the_rows_selected_for_it():
    plan = _plan(40, (50, 20), (3, 2), batch_size=10)
    selected = [torch.tensor([1, 8, 40, 44]), torch.tensor([19])]
    rows = torch.cat([plan.rows(step, selected).outliers for step in range(4)]).tolist()
    assert sorted(row for row in rows if row < 50) == sorted([1, 8, 40, 44] * 3)
    assert [row for row in rows if row >= 50] == [69] * 8


def test_order_depends_on_the_seed_and_the_purpose_only():
    first, other = (_plan(100, (100,), (10,), batch_size=10, seed=seed).rows(5) for seed in (1, 2))
    assert torch.equal(first.id, _plan(100, batch_size=10, seed=1).rows(5).id)
    assert not torch.equal(first.id, other.id) and not torch.equal(first.outliers, other.outliers)
    assert not torch.equal(first.id, first.outliers)


def test_no_two_purposes_share_a_stream():
    purposes = [batches.ID_ORDER, batches.OUTLIER_ORDER, batches.ID_AUGMENTATION, batches.OUTLIER_AUGMENTATION]
    purposes += [batches.VALIDATION, batches.DROPOUT]
    seeds = [batches.derived_seed(seed, batches.WEIGHTS) for seed in range(3)]
    seeds += [batches.derived_seed(*numbers) for numbers in itertools.product(range(3), purposes, range(4))]
    assert len(set(seeds)) == 3 + 3 * 6 * 4


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


def test_a_divided_step_is_augmented_like_a_whole_one():
    images = torch.randint(0, 256, (10, 6, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = augment(images, 2, 7, ID_AUGMENTATION, 3)
    parts = [augment(images[a:b], 2, 7, ID_AUGMENTATION, 3, place=(10, a)) for a, b in ((0, 3), (3, 10))]
    assert torch.equal(torch.cat(parts), whole)


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
