"""Near-duplicates within a set: groups of the same picture, each with one representative."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curate import within
from curate.alignment import aligned_similarity
from curate.candidates import Candidates
from curate.copies import CopyThreshold
from curate.fingerprints import DIMENSIONS, copy_descriptor
from curate.leaks import Matches, ProtectedIndex
from curate.partitions import Rows, partition, unpacked
from curate.row_file import RowFile
from curate.within import Pairs, pair_keys

Search = Callable[[ProtectedIndex, np.ndarray | None], Matches]

WITH_A_LEAK = -1
FLAT = 50_000  # rows up to which each is compared with all; beyond it they are partitioned first
KEPT = 8  # pairs of a row of a large set that are kept, with lower rows, with higher rows and with leaks
LOOKED_AT_AGAIN = 64  # members, at most, of a component of a large set in which all pairs may be looked at


@dataclass(frozen=True)
class Groups:
    """`representative` int64 (N,), the row that represents each row's group; `index`, for the manifest, how rows were
    compared."""

    representative: np.ndarray
    index: dict[str, Any]


def search_within(index: ProtectedIndex, descriptors: np.ndarray | None) -> Matches:
    """The verified pairs within the set that is indexed; its `copy_descriptor`s where they are known."""
    return index.search(index.images, descriptors, within=True)


def group_duplicates(
    images: np.ndarray,
    descriptors: np.ndarray | None,
    threshold: CopyThreshold,
    leaked: np.ndarray | None = None,
    workers: int | None = None,
    search: Search = search_within,
) -> np.ndarray:
    """For each row of `images` (uint8 (N, H, W, 3)) the row that represents its group, int64 (N,).

    A row with no copy represents itself; a representative is the lowest row of its group. Rows that are `leaked` (bool
    (N,)), copies of protected images, represent nothing: they are WITH_A_LEAK, and so is every row of a group that one
    of them is a copy of a member of. `workers` threads change the speed and nothing else, nor does where pairs are
    `search`ed (`curate.engines`).
    """
    return find_groups(images, descriptors, threshold, leaked, search, workers).representative


def find_groups(
    images: Rows,
    descriptors: Rows | None,
    threshold: CopyThreshold,
    leaked: np.ndarray | None = None,
    search: Search = search_within,
    workers: int | None = None,
    folder: Path | None = None,
    seed: int = 0,
) -> Groups:
    """As `group_duplicates`, with how it was found; `images` and `descriptors` may be files (`RowFile`).

    Up to FLAT rows every row is compared with all. Beyond it, they are partitioned (`curate.within`), and what is found
    is measured.

    Args:
        search: where pairs of a set that is not partitioned are searched (`curate.engines`).
        folder: where files may be put that large sets need; by default they are kept in memory.
        seed: decides the partition, and the rows that the recall is measured with.
    """
    if len(images) < 2:
        alone = np.arange(len(images))
        return Groups(alone if leaked is None else np.where(leaked, WITH_A_LEAK, alone), {"kind": "flat"})
    if len(images) > FLAT:
        return _partitioned(images, descriptors, threshold, leaked, workers, folder, seed)
    whole = images.mapped() if isinstance(images, RowFile) else np.asarray(images)
    known = None if descriptors is None else unpacked(np.asarray(descriptors))
    candidates = None if known is None else Candidates(known)
    pairs = search(ProtectedIndex(np.asarray(whole), threshold, workers, candidates), known)  # of a map a plain array
    return Groups(group_pairs(whole, pairs, threshold, leaked), {"kind": "flat"})


def group_pairs(
    images: Rows,
    pairs: Matches | Pairs,
    threshold: CopyThreshold,
    leaked: np.ndarray | None = None,
    again: int | None = None,
) -> np.ndarray:
    """As `group_duplicates`, from the verified pairs of a search within `images`.

    Pairs are joined to connected components, and a component is then split so that every member was verified against
    its representative: a chain of small changes does not make its two ends the same picture. A pair that is not among
    the verified ones is looked at once more, in components of up to `again` members, or all.
    """
    count = len(images)
    leaked = np.zeros(count, bool) if leaked is None else leaked
    representative = np.where(leaked, WITH_A_LEAK, np.arange(count))
    a, b = (pairs.query, pairs.protected) if isinstance(pairs, Matches) else (pairs.low, pairs.high)
    free = ~(leaked[a] | leaked[b])
    component = _components(count, a[free], b[free])
    verified = np.unique(pair_keys(a[free], b[free], count))
    members = np.flatnonzero(np.bincount(component, minlength=count)[component] > 1)
    with_first = (members == component[members]) | _among(pair_keys(members, component[members], count), verified)
    mixed = np.unique(component[members[~with_first]])
    simple = members[~np.isin(component[members], mixed)]
    representative[simple] = component[simple]
    members = members[np.isin(component[members], mixed)]
    members = members[np.argsort(component[members], kind="stable")]
    ends = np.searchsorted(component[members], mixed, "right")
    for group in np.split(members, ends[:-1]) if len(mixed) else []:
        if again is None or len(group) <= again:
            _split(group, verified, images, pairs.typical, threshold.similarity, representative)
        else:
            _split_by_pairs(group, verified, count, representative)
    beside = np.unique(np.concatenate([a[leaked[b]], b[leaked[a]]]))  # rows that are a copy of a leak
    groups = np.unique(representative[beside])
    representative[np.isin(representative, groups)] = WITH_A_LEAK
    return representative


def _partitioned(
    images: Rows,
    descriptors: Rows | None,
    threshold: CopyThreshold,
    leaked: np.ndarray | None,
    workers: int | None,
    folder: Path | None,
    seed: int,
) -> Groups:
    known = copy_descriptor(np.asarray(images)) if descriptors is None else descriptors
    stored = RowFile(folder / "lists.bin", (DIMENSIONS,), np.int16) if folder else None
    lists = partition(known, stored, seed, workers=workers)
    recall = within.measured_recall(images, known, lists, seed)
    leak = np.zeros(len(images), bool) if leaked is None else leaked

    def few(query: np.ndarray, row: np.ndarray) -> np.ndarray:
        """The lowest pairs of each row and kind: a group of thousands of copies has millions of pairs."""
        kind = np.where(leak[row], 2, row > query)
        order = np.lexsort((row, kind, query))
        of = (query * 3 + kind)[order]
        keep = np.zeros(len(query), bool)
        keep[order[np.arange(len(of)) - np.searchsorted(of, of) < KEPT]] = True
        return keep

    pairs = within.find_pairs(images, lists, threshold, workers, few)
    index = {
        "kind": "partitioned",
        "lists": lists.lists,
        "probes": lists.probes,
        "candidates": within.CANDIDATES,
        "recall": round(recall.partitioned, 4),
        "recall_of_flat": round(recall.flat, 4),
    }
    return Groups(group_pairs(images, pairs, threshold, leaked, LOOKED_AT_AGAIN), index)


def _among(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Which values are among those of an ascending array, bool."""
    place = np.searchsorted(ascending, values)
    found = np.zeros(len(values), bool)
    inside = place < len(ascending)
    found[inside] = ascending[place[inside]] == values[inside]
    return found


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
    verified: np.ndarray,
    images: Rows,
    typical: np.ndarray,
    threshold: float,
    out: np.ndarray,
) -> None:
    """Give the lowest unassigned row every unassigned member that is a copy of it, until none is left."""
    while len(members):
        first, rest = int(members[0]), members[1:]
        same = _among(pair_keys(rest, np.full(len(rest), first), len(images)), verified)
        unknown = rest[~same]
        if len(unknown):  # not among the candidates, or below the threshold: look once more
            lead = np.repeat(images[first : first + 1], len(unknown), axis=0)
            same[~same] = aligned_similarity(images[unknown], lead, typical[unknown]) >= threshold
        out[first] = first
        out[rest[same]] = first
        members = rest[~same]


def _split_by_pairs(members: np.ndarray, verified: np.ndarray, count: int, out: np.ndarray) -> None:
    """As `_split`, where only the `verified` pairs are copies."""
    ends = np.searchsorted(verified, np.stack([members, members + 1]) * count)  # pairs of which a member is the lower
    out[members] = WITH_A_LEAK  # not assigned yet
    for row, start, end in zip(members.tolist(), *ends.tolist(), strict=True):
        if out[row] == WITH_A_LEAK:
            copies = verified[start:end] % count
            out[copies[out[copies] == WITH_A_LEAK]] = row
            out[row] = row
