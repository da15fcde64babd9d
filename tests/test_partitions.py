"""Descriptors in lists against all inner products."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from curate import partitions
from curate.candidates import Candidates
from curate.fingerprints import DIMENSIONS, UNIT, exact_unit, flip_descriptor
from curate.partitions import CROWD, packed, partition
from curate.row_file import RowFile


def descriptors(rng: np.random.Generator, count: int, kinds: int = 40) -> np.ndarray:
    """Points around some centres, as pictures are; half of them mirrored."""
    centre = rng.normal(size=(kinds, DIMENSIONS))[rng.integers(0, kinds, count)]
    found = (exact_unit(centre + 0.7 * rng.normal(size=(count, DIMENSIONS))) / UNIT).astype(np.float32)
    found[::2] = flip_descriptor(found[::2])
    return found


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(a.astype(float) @ b.T, flip_descriptor(a).astype(float) @ b.T)


def test_with_every_list_probed_it_is_the_search_of_all_rows() -> None:
    rows = descriptors(np.random.default_rng(0), 3000)
    rows[7:19] = rows[5]  # as near as one another: all of them or none
    lists = partition(rows, probes=10**6)
    found = lists.search(rows[:100], 16, 0.9)
    expected = Candidates(rows).search(rows[:100], 16, 0.9)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_few_lists_find_nearly_all_of_the_nearest() -> None:
    rows = descriptors(np.random.default_rng(1), 6000, kinds=6000)  # no two are near, which is hardest
    lists = partition(rows, probes=60)
    assert lists.lists == 155 and partition(rows[:100]).probes == 16
    expected = Candidates(rows).search(rows[:300], 8, 0.9)
    found = lists.search(rows[:300], 8, 0.9)
    pairs = zip(found, expected, strict=True)
    recall = np.mean([len(np.intersect1d(ours, theirs)) / len(theirs) for ours, theirs in pairs])
    assert 0.7 < recall < 1
    mirrored = lists.search(flip_descriptor(rows[:300]), 8, 0.9)
    for ours, theirs in zip(found, mirrored, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_row_lies_in_the_list_of_the_nearest_centroid() -> None:
    rows = descriptors(np.random.default_rng(2), 2000)
    lists = partition(rows, lists=30)
    half = DIMENSIONS // 2
    centroids = np.concatenate([lists.even, lists.odd], axis=1).astype(np.float64)
    np.testing.assert_array_equal(centroids * UNIT, np.rint(centroids * UNIT))  # on the grid
    even, odd = (x.astype(np.float64) for x in partitions.parts(rows))
    near = even @ centroids[:, :half].T + np.abs(odd @ centroids[:, half:].T)
    own = near.argmax(axis=1)
    for number in range(30):
        members = lists.order[lists.starts[number] : lists.starts[number + 1]]
        np.testing.assert_array_equal(members, np.flatnonzero(own == number))
    np.testing.assert_array_equal(lists.stored[:], np.rint(rows[lists.order] * UNIT))


def test_lists_do_not_depend_on_threads_nor_on_where_descriptors_are(tmp_path: Path) -> None:
    rows = descriptors(np.random.default_rng(3), 4000)
    one, two = partition(rows, seed=5, workers=1), partition(packed(rows), seed=5, workers=2)
    given, stored = (RowFile(tmp_path / name, (DIMENSIONS,), np.int16) for name in ("given.bin", "stored.bin"))
    given.append(packed(rows))
    filed = partition(given, stored, seed=5)
    for other in (two, filed):
        for name in ("even", "odd", "order", "starts"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_array_equal(one.stored[:], other.stored[:])
    assert not np.array_equal(one.even, partition(rows, seed=6).even)
    whole = one.search(rows[:64], 8, 0.9)
    for k in range(0, 64, 10):  # what is found for one query does not depend on those beside it
        np.testing.assert_array_equal(filed.search(rows[k : k + 1], 8, 0.9)[0], whole[k])


def test_blocks_are_whole_lists_and_cover_all_rows() -> None:
    lists = partition(descriptors(np.random.default_rng(4), 1500), lists=25)
    blocks = list(lists.blocks(200))
    assert blocks[0].start == 0 and blocks[-1].stop == 1500
    assert all(a.stop == b.start for a, b in pairwise(blocks))
    assert all(block.stop - block.start >= 200 for block in blocks[:-1])
    assert {block.stop for block in blocks} <= set(lists.starts.tolist())


def test_of_a_crowd_the_nearest_and_the_lowest_are_looked_at() -> None:
    rng = np.random.default_rng(5)
    rows = descriptors(rng, 2000)
    crowd = np.sort(rng.permutation(2000)[:400])
    rows[crowd] = rows[0] + (rng.random((400, DIMENSIONS)) < 0.02).astype(np.float32) / UNIT
    lists = partition(rows, lists=12, probes=12)
    (found,) = lists.search(rows[crowd[7:8]], 16, 0.9)
    near = similarity(rows[crowd[7:8]], rows)[0]
    nearest = np.sort(np.argsort(-near, kind="stable")[:16])
    sure = np.flatnonzero(near >= 0.9)
    assert len(sure) >= 400
    np.testing.assert_array_equal(found, np.union1d(nearest, sure[: CROWD - 16]))


@pytest.mark.parametrize("rows", [100, 10_000, 1_000_000])
def test_a_list_grows_with_the_root_of_the_rows(rows: int) -> None:
    assert rows / partitions.default_lists(rows) == pytest.approx(rows**0.5 / 2, rel=0.01)


def test_a_descriptor_takes_two_bytes_a_number() -> None:
    rows = descriptors(np.random.default_rng(6), 1000)
    lists = partition(rows)
    assert lists.stored.nbytes == 1000 * DIMENSIONS * 2 and packed(rows).nbytes == 1000 * DIMENSIONS * 2
    np.testing.assert_array_equal(partitions.unpacked(packed(rows)), rows)
