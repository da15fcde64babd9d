"""Near-duplicates within a set: groups of the same picture, each with one representative."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from curate.alignment import aligned_similarity
from curate.copies import CopyThreshold
from curate.leaks import Matches, ProtectedIndex

WITH_A_LEAK = -1


def search_within(index: ProtectedIndex, descriptors: np.ndarray | None) -> Matches:
    """The verified pairs within the set that is indexed; its `copy_descriptor`s where they are known."""
    return index.search(index.images, descriptors, within=True)


def group_duplicates(
    images: np.ndarray,
    descriptors: np.ndarray | None,
    threshold: CopyThreshold,
    leaked: np.ndarray | None = None,
    workers: int | None = None,
    search: Callable[[ProtectedIndex, np.ndarray | None], Matches] = search_within,
) -> np.ndarray:
    """For each row of `images` (uint8 (N, H, W, 3)) the row that represents its group, int64 (N,).

    A row with no copy represents itself; a representative is the lowest row of its group. Rows that are `leaked` (bool
    (N,)), copies of protected images, represent nothing: they are WITH_A_LEAK, and so is every row of a group that one
    of them is a copy of a member of. `workers` threads change the speed and nothing else, nor does where pairs are
    `search`ed (`curate.engines`).
    """
    if len(images) < 2:
        alone = np.arange(len(images))
        return alone if leaked is None else np.where(leaked, WITH_A_LEAK, alone)
    index = ProtectedIndex(np.asarray(images), threshold, workers)  # of a memory-mapped file a plain array
    return group_pairs(images, search(index, descriptors), threshold, leaked)


def group_pairs(
    images: np.ndarray, pairs: Matches, threshold: CopyThreshold, leaked: np.ndarray | None = None
) -> np.ndarray:
    """As `group_duplicates`, from the verified pairs of a search within `images`.

    Pairs are joined to connected components, and a component is then split so that every member was verified against
    its representative: a chain of small changes does not make its two ends the same picture.
    """
    count = len(images)
    leaked = np.zeros(count, bool) if leaked is None else leaked
    representative = np.where(leaked, WITH_A_LEAK, np.arange(count))
    a, b = pairs.query, pairs.protected
    free = ~(leaked[a] | leaked[b])
    component = _components(count, a[free], b[free])
    order = np.argsort(component, kind="stable")
    sizes = np.unique(component, return_counts=True)[1]
    verified = set(zip(a[free].tolist(), b[free].tolist(), strict=True))
    for members in np.split(order, np.cumsum(sizes)[:-1]):
        if len(members) > 1:
            _split(members, verified, images, pairs.typical, threshold.similarity, representative)
    beside = np.unique(np.concatenate([a[leaked[b]], b[leaked[a]]]))  # rows that are a copy of a leak
    groups = np.unique(representative[beside])
    representative[np.isin(representative, groups)] = WITH_A_LEAK
    return representative


def _components(count: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The lowest row that each row is connected to by pairs (a[i], b[i]), int64 (count,): union-find."""
    root = np.arange(count)
    while True:
        low, high = np.minimum(root[a], root[b]), np.maximum(root[a], root[b])
        if np.array_equal(low, high):
            return root
        np.minimum.at(root, high, low)
        while not np.array_equal(root, root[root]):
            root = root[root]


def _split(
    members: np.ndarray,
    verified: set[tuple[int, int]],
    images: np.ndarray,
    typical: np.ndarray,
    threshold: float,
    out: np.ndarray,
) -> None:
    """Give the lowest unassigned row every unassigned member that is a copy of it, until none is left."""
    while len(members):
        first, rest = int(members[0]), members[1:]
        same = np.array([(int(m), first) in verified or (first, int(m)) in verified for m in rest], bool)
        unknown = rest[~same]
        if len(unknown):  # not among the candidates, or below the threshold: look once more
            lead = np.repeat(images[first : first + 1], len(unknown), axis=0)
            same[~same] = aligned_similarity(images[unknown], lead, typical[unknown]) >= threshold
        out[first] = first
        out[rest[same]] = first
        members = rest[~same]
