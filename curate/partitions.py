"""Copy descriptors cut into lists, so that a query is compared with a few lists and not with all rows.

A row lies in the list of the nearest centroid, where a picture and its mirror image are equally near: it is the same
measure as in `curate.candidates`, and a picture and its mirror image lie in one list. Centroids are found by Lloyd's
iterations on a seeded sample. They are kept on the grid of the descriptors, so that every product is exact in float32,
sums are of whole numbers and ties go to the lowest number: lists are the same on any number of threads and any
processor.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from curate.candidates import parts
from curate.fingerprints import UNIT, exact_unit

PROBES = 16  # lists that a query is compared with
POINTS = 32  # rows of the sample for each list
ITERATIONS = 6
CROWD = 128  # rows, at most, that are looked at for a query, however many there are that are near enough

_BLOCK = 1024  # rows assigned at once


class Rows(Protocol):
    """Rows of an array, or of a file that is read like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> np.ndarray: ...


def packed(descriptors: np.ndarray) -> np.ndarray:
    """Descriptors (N, 144) as whole multiples of 1 / UNIT, int16: half the bytes, and no less exact."""
    return descriptors if descriptors.dtype == np.int16 else np.rint(descriptors * UNIT).astype(np.int16)


def default_lists(rows: int) -> int:
    """The number of lists: twice the square root of the rows, so that a list grows with the root as well."""
    return max(1, round(2 * rows**0.5))


@dataclass(frozen=True)
class Partitions:
    """Rows of a set by lists.

    `even`, `odd` float32 (L, 72), the parts of the centroids; list i holds the rows `order[starts[i]:starts[i + 1]]`,
    ascending, and `stored` has the descriptors (N, 144) int16 in that order. Neighbouring lists have near centroids.
    """

    even: np.ndarray
    odd: np.ndarray
    order: np.ndarray
    starts: np.ndarray
    stored: Rows
    probes: int

    def __len__(self) -> int:
        return len(self.order)

    @property
    def lists(self) -> int:
        """How many lists there are."""
        return len(self.even)

    def blocks(self, rows: int) -> Iterator[slice]:
        """Whole lists one after the other, in slices of `order` that have `rows` or more, but for the last."""
        start = 0
        for end in self.starts[1:].tolist():
            if end - start >= rows or (end == len(self) and end > start):
                yield slice(start, end)
                start = end

    def search(self, descriptors: np.ndarray, most: int, sure: float) -> list[np.ndarray]:
        """The rows to look at for each of the (Q, 144) descriptors, ascending, int64.

        As `Candidates.search` gives them, out of the rows of the nearest `probes` lists (more where several are equally
        near). Where they are more than CROWD, they are the `most` nearest and the lowest of those that are `sure`.
        Queries that are near each other are quicker together. What is found for one does not depend on the others.
        """
        even, odd = parts(unpacked(descriptors))
        near = nearness(even, odd, self.even, self.odd)
        own = near.argmax(axis=1)
        probes = min(self.probes, self.lists)
        probed = near >= np.partition(near, -probes, axis=1)[:, -probes][:, None]
        found = _Found(len(self), len(even), most, np.float32(2 * sure))
        probed[np.arange(len(own)), own] = False
        for number in np.unique(own).tolist():  # first, as they tell how near the nearest are
            found.look(np.flatnonzero(own == number), *self._products(number, own == number, even, odd))
        for number in np.flatnonzero(probed.any(axis=0)).tolist():
            which = probed[:, number]
            found.look(np.flatnonzero(which), *self._products(number, which, even, odd))
        return found.rows()

    def _products(
        self, number: int, which: np.ndarray, even: np.ndarray, odd: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        members = slice(int(self.starts[number]), int(self.starts[number + 1]))
        return self.order[members], nearness(even[which], odd[which], *parts(unpacked(self.stored[members])))


class _Found:
    """What was found for each query so far: rows, and twice how near they are."""

    def __init__(self, count: int, queries: int, most: int, reached: np.float32) -> None:
        self.count, self.most, self.reached = count, most, reached
        self.least = np.full(queries, -np.inf, np.float32)  # `most` rows or more are this near
        self.parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def look(self, queries: np.ndarray, rows: np.ndarray, near: np.ndarray) -> None:
        """Keep what may be among the nearest, of the `rows` that are `near` (queries, rows)."""
        if len(rows) > self.most:
            new = np.flatnonzero(np.isneginf(self.least[queries]))
            if len(new):
                place = len(rows) - self.most
                self.least[queries[new]] = np.partition(near[new], place, axis=1)[:, place]
        limit = np.minimum(self.least[queries], self.reached)
        query, row = np.nonzero(near >= limit[:, None])
        value = near[query, row]
        counts = np.bincount(query, minlength=len(queries))
        crowded = np.flatnonzero(counts > CROWD)
        if len(crowded):
            keep = ~np.isin(query, crowded)
            ends = np.cumsum(counts)
            for k in crowded.tolist():
                hits = slice(int(ends[k] - counts[k]), int(ends[k]))
                keep[hits] = self._trimmed(value[hits], CROWD)
            query, row, value = query[keep], row[keep], value[keep]
        self.parts.append((queries[query], rows[row], value))

    def rows(self) -> list[np.ndarray]:
        """The rows of each query, ascending."""
        query, row, value = (np.concatenate([part[k] for part in self.parts]) for k in range(3))
        order = np.argsort(query * self.count + row)
        query, row, value = query[order], row[order], value[order]
        out = []
        ends = np.cumsum(np.bincount(query, minlength=len(self.least))).tolist()
        start = 0
        for end in ends:
            values, chosen = value[start:end], row[start:end]
            most = min(self.most, len(values))
            if most:
                keep = values >= min(np.partition(values, -most)[-most], self.reached)
                if np.count_nonzero(keep) > CROWD:
                    keep = self._trimmed(values, CROWD - self.most)
                chosen = chosen[keep]
            out.append(chosen)
            start = end
        return out

    def _trimmed(self, values: np.ndarray, lowest: int) -> np.ndarray:
        """Which of the rows of a query, ascending, to keep: the nearest, and the `lowest` of those near enough."""
        keep = np.zeros(len(values), bool)
        keep[np.argsort(-values, kind="stable")[: self.most]] = True
        keep[np.flatnonzero(values >= self.reached)[:lowest]] = True
        return keep


def partition(
    descriptors: Rows,
    stored: Rows | None = None,
    seed: int = 0,
    lists: int | None = None,
    probes: int = PROBES,
    workers: int | None = None,
) -> Partitions:
    """Cut (N, 144) descriptors, float32 or `packed`, into lists.

    Args:
        descriptors: of the rows of a set, an array or a file.
        stored: an empty `RowFile` that takes them in the order of the lists; by default they are kept in memory.
        seed: decides the sample that centroids are found on.
        lists: how many; by default `default_lists`.
        probes: how many of them a search looks into.
        workers: threads; they change the speed and nothing else.
    """
    count = len(descriptors)
    lists = min(lists or default_lists(count), count)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x9A27]))
    sample = rng.permutation(count)[: POINTS * lists]
    first = np.sort(sample[:lists])
    sample = np.sort(sample)
    points = np.concatenate(parts(unpacked(descriptors[sample])), axis=1)
    centroids = points[np.searchsorted(sample, first)]
    threads = workers or os.cpu_count() or 1
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        for _ in range(ITERATIONS):
            blocks = [points[start : start + _BLOCK] for start in range(0, len(points), _BLOCK)]
            pieces = pool.map(_nearest, blocks, [centroids] * len(blocks))
            own, turned = (np.concatenate(found) for found in zip(*pieces, strict=True))
            centroids = _means(points, own, turned, centroids)
        centroids = centroids[_chain(centroids)]

        def assign(start: int) -> np.ndarray:
            block = np.concatenate(parts(unpacked(descriptors[start : start + _BLOCK])), axis=1)
            return _nearest(block, centroids)[0]

        own = np.concatenate(list(pool.map(assign, range(0, count, _BLOCK))))
    order = np.argsort(own, kind="stable")
    starts = np.searchsorted(own[order], np.arange(lists + 1))
    if stored is None:
        stored = packed(np.asarray(descriptors[order]))
    else:
        for start in range(0, count, 1 << 16):
            stored.append(packed(descriptors[order[start : start + (1 << 16)]]))  # type: ignore[attr-defined]
    half = centroids.shape[1] // 2
    even, odd = np.ascontiguousarray(centroids[:, :half]), np.ascontiguousarray(centroids[:, half:])
    return Partitions(even, odd, order, starts, stored, probes)


def unpacked(descriptors: np.ndarray) -> np.ndarray:
    """The inverse of `packed`, float32."""
    return descriptors.astype(np.float32) / np.float32(UNIT) if descriptors.dtype == np.int16 else descriptors


def nearness(even: np.ndarray, odd: np.ndarray, of_even: np.ndarray, of_odd: np.ndarray) -> np.ndarray:
    """Twice the larger of the products with a picture and with its mirror image, (Q, P) float32, exact."""
    turned = odd @ of_odd.T
    kept = even @ of_even.T
    return np.add(kept, np.abs(turned, out=turned), out=kept)


def _nearest(points: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The list of each point (n, 144), even part then odd; and whether it is the mirror image that is near."""
    half = points.shape[1] // 2
    turned = points[:, half:] @ centroids[:, half:].T
    kept = points[:, :half] @ centroids[:, :half].T
    own = np.add(kept, np.abs(turned), out=kept).argmax(axis=1)  # the first of the largest
    return own.astype(np.int32), turned[np.arange(len(own)), own] < 0


def _means(points: np.ndarray, own: np.ndarray, turned: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The mean direction of each list's points on the grid, mirror images turned back; as `before` where it is none."""
    half = points.shape[1] // 2
    order = np.argsort(own, kind="stable")
    filled, starts = np.unique(own[order], return_index=True)
    whole = np.rint(points[order] * UNIT).astype(np.int64)
    whole[turned[order], half:] *= -1
    sums = np.add.reduceat(whole, starts, axis=0)
    some = sums.any(axis=1)
    out = before.copy()
    out[filled[some]] = (exact_unit(sums[some]) / UNIT).astype(np.float32)
    return out


def _chain(centroids: np.ndarray) -> np.ndarray:
    """An order of the centroids in which each is followed by the nearest that is left."""
    half = centroids.shape[1] // 2
    left = np.ones(len(centroids), bool)
    order = np.zeros(len(centroids), np.int64)
    for k in range(1, len(centroids)):
        last = centroids[order[k - 1]]
        left[order[k - 1]] = False
        near = centroids[:, :half] @ last[:half] + np.abs(centroids[:, half:] @ last[half:])
        order[k] = np.where(left, near, -np.inf).argmax()
    return order
