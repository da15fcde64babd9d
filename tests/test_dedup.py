"""Groups of the same picture within a set."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from curate import dedup
from curate.alignment import aligned_similarity
from curate.copies import CopyThreshold
from curate.dedup import group_duplicates
from curate.fingerprints import copy_descriptor
from curate.leaks import ProtectedIndex
from curate.within import Pairs

THRESHOLD = CopyThreshold(0.85, {}, 0.0, 0, 0, {})


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    """200 textured 32x32 tiles that do not overlap."""
    photo = np.concatenate([data.astronaut(), data.coffee()[:400, :512]])
    cut = [photo[t : t + 32, x : x + 32] for t in range(0, 896, 32) for x in range(0, 512, 32)]
    stacked = np.stack([tile for tile in cut if tile.std() > 25])
    return stacked[np.linspace(0, len(stacked) - 1, 200).astype(int)]


def test_copies_join_the_lowest_row(tiles: np.ndarray) -> None:
    alone = group_duplicates(tiles, copy_descriptor(tiles), THRESHOLD)
    brighter = np.clip(tiles[:30] * 1.1, 0, 255).astype(np.uint8)
    images = np.concatenate([tiles, tiles[:30, :, ::-1], brighter, tiles[:5]])
    groups = group_duplicates(images, copy_descriptor(images), THRESHOLD)
    assert groups.dtype == np.int64
    assert (alone != np.arange(200)).mean() < 0.03
    for start in (200, 230):
        assert (groups[start : start + 30] == groups[:30]).mean() >= 0.95
    np.testing.assert_array_equal(groups[260:], groups[:5])  # the same pixels, always
    np.testing.assert_array_equal(groups[groups], groups)
    assert (groups <= np.arange(len(groups))).all()


def test_every_member_was_verified_against_its_representative(tiles: np.ndarray) -> None:
    images = np.concatenate([tiles[:40], tiles[:40, :, ::-1], np.roll(tiles[:40], 2, axis=2)])
    groups = group_duplicates(images, None, THRESHOLD)
    member = np.flatnonzero(groups != np.arange(len(images)))
    assert len(member) > 60
    index = ProtectedIndex(images, THRESHOLD)
    found = index.search(images, within=True)
    pairs = set(zip(found.query.tolist(), found.protected.tolist(), strict=True))
    again = aligned_similarity(images[member], images[groups[member]], found.typical[member]) >= 0.85
    for k, row in enumerate(member.tolist()):
        first = int(groups[row])
        assert again[k] or (row, first) in pairs or (first, row) in pairs


def test_a_chain_that_drifts_is_split() -> None:
    """Crops of one photograph, each 3 pixels from the last: neighbours are the same picture, the ends are not."""
    photo = data.astronaut()[60:92]
    images = np.stack([photo[:, x : x + 32] for x in range(200, 230, 3)])
    groups = group_duplicates(images, None, THRESHOLD)
    similarity = aligned_similarity(images[1:], images[:-1])
    assert (similarity > 0.85).all()  # so that the component is one
    assert aligned_similarity(images[-1:], images[:1])[0] < 0.85
    assert len(np.unique(groups)) > 1 and groups[0] == 0 and groups[-1] != 0
    for row, first in enumerate(groups.tolist()):
        if row != first:
            both = [aligned_similarity(images[[a]], images[[b]])[0] for a, b in ((row, first), (first, row))]
            assert max(both) >= 0.8


def test_a_group_that_a_leak_is_a_copy_of_goes_as_a_whole(tiles: np.ndarray) -> None:
    """Crops 4 pixels apart: each is a copy of its neighbours and of no other."""
    photo = data.astronaut()[60:92]
    leak, s, t, u = (photo[None, :, x : x + 32] for x in (200, 204, 208, 212))
    leaked = np.array([False] * 23 + [True])
    for order, expected in (
        ((t, s, u), [-1, -1, -1]),  # t stands for all three, and s is a copy of the leak
        ((s, t, u), [-1, -1, 2]),  # s stands for t; u is a group of its own
        ((u, t, s), [0, 0, -1]),  # u stands for t
    ):
        images = np.concatenate([*order, tiles[:20], leak])
        groups = group_duplicates(images, None, THRESHOLD, leaked)
        assert groups[:3].tolist() == expected and groups[-1] == -1
        np.testing.assert_array_equal(groups[3:-1], group_duplicates(tiles[:20], None, THRESHOLD) + 3)
        plain = group_duplicates(images[:-1], None, THRESHOLD)
        assert plain[0] == 0 and len(np.unique(plain[:3])) < 3


def test_rows_that_are_all_leaks_or_just_one(tiles: np.ndarray) -> None:
    assert group_duplicates(tiles[:1], None, THRESHOLD, np.array([True])).tolist() == [-1]
    assert group_duplicates(tiles[:9], None, THRESHOLD, np.ones(9, bool)).tolist() == [-1] * 9
    assert group_duplicates(tiles[:9], None, THRESHOLD, np.zeros(9, bool)).tolist() == list(range(9))


def test_components_are_those_of_a_search_by_hand() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 300, (2, 200))
    expected = list(range(300))
    for _ in range(300):  # pass the lowest label along every edge until nothing changes
        before = list(expected)
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            expected[x] = expected[y] = min(expected[x], expected[y])
        if before == expected:
            break
    np.testing.assert_array_equal(dedup._components(300, a, b), expected)


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_group(count: int) -> None:
    assert group_duplicates(np.zeros((count, 32, 32, 3), np.uint8), None, THRESHOLD).tolist() == list(range(count))


def test_a_large_component_is_split_by_its_pairs_alone() -> None:
    """The lowest row takes what it was verified against, and so on; by hand, row after row."""
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 60, (2, 90))
    a, b = np.minimum(a, b)[a != b], np.maximum(a, b)[a != b]
    pairs = set(zip(a.tolist(), b.tolist(), strict=True))
    expected = list(range(60))
    free = set(range(60))
    for row in range(60):
        if row in free:
            for other in [other for other in sorted(free) if other == row or (row, other) in pairs]:
                expected[other] = row
                free.remove(other)
    images = np.zeros((60, 32, 32, 3), np.uint8)  # not looked at
    found = Pairs(a.astype(np.int32), b.astype(np.int32), np.zeros(60, np.float32))
    assert dedup.group_pairs(images, found, THRESHOLD, again=0).tolist() == expected
