"""Copies within a large set: "partition, then compare".

The descriptors are cut into lists (`curate.partitions`), and the lists are gone through in blocks. For a block the rows
to look at are found, and what it takes to verify them, its rows and their candidates, is a small set of its own: memory
does not grow with the whole set, and blocks may be verified in any order and anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from curate import alignment, sketch
from curate.candidates import parts
from curate.copies import COPIES, CopyThreshold, synthetic_copies
from curate.fingerprints import SIDE, canonical, copy_descriptor, pixel_sha256
from curate.leaks import SURE, ProtectedIndex
from curate.partitions import Partitions, Rows, nearness, unpacked

CANDIDATES = 16  # looked at for each row, nearest first; a pair is looked at from both sides
BLOCK = 2048  # rows verified together
SAMPLE = 64  # rows of which copies of every kind are made to measure the recall

_NONE = np.empty(0, np.int64)
_READ = 4096
_FEW = 64


@dataclass(frozen=True)
class Pairs:
    """Verified pairs of rows of the same picture, int32 (M,), each `low` < `high`, ascending and each once; and the
    typical correlation of every row, float32 (N,)."""

    low: np.ndarray
    high: np.ndarray
    typical: np.ndarray


@dataclass(frozen=True)
class Recall:
    """Of copies made of a sample of rows, the share whose original is among the candidates: of a search of all rows
    (`flat`), and out of those that it finds, of the search of the lists (`partitioned`)."""

    flat: float
    partitioned: float


def find_pairs(
    images: Rows,
    partitions: Partitions,
    threshold: CopyThreshold,
    workers: int | None = None,
    kept: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    advance: Callable[[int], object] | None = None,
) -> Pairs:
    """Every verified pair of `images` (N, H, W, 3) uint8 that is among the candidates of either of its rows.

    Args:
        workers: threads, each with a block; they change the speed and nothing else.
        kept: which of a block's pairs (query, row) to keep, bool; all by default.
        advance: is told how many rows are done, block by block.
    """
    typical = np.full(len(images), alignment.TYPICAL, np.float32)
    twins = equal_rows(images, workers)
    keys, left = [np.empty(0, np.int64)], [np.empty((2, 0), np.int64)]
    threads = workers or os.cpu_count() or 1

    def verify(places: np.ndarray | slice, every: bool) -> Verified:
        rows = partitions.order[places]
        found = partitions.search(partitions.stored[places], CANDIDATES, SURE)
        found = [np.append(some, twins.get(row, _NONE)) for row, some in zip(rows.tolist(), found, strict=True)]
        certain = np.array([every or row in twins for row in rows.tolist()])
        return verify_block(images, rows, found, threshold, certain)

    def take(blocks: Iterator[np.ndarray | slice], every: bool) -> None:
        while some := list(islice(blocks, 8 * threads)):
            for found in pool.map(verify, some, [every] * len(some)):
                typical[found.rows[found.looked_at]] = found.typical[found.looked_at]
                which = slice(None) if kept is None else kept(found.query, found.row)
                keys.append(pair_keys(found.query[which], found.row[which], len(images)))
                left.append(found.left)
                if advance:
                    advance(0 if every else len(found.rows))

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        take(iter(partitions.blocks(BLOCK)), False)
        query, row = np.concatenate(left, axis=1)
        again = np.unique(query[~np.isin(pair_keys(query, row, len(images)), np.concatenate(keys))])
        places = np.flatnonzero(np.isin(partitions.order, again))
        take((places[start : start + BLOCK] for start in range(0, len(places), BLOCK)), True)
    low, high = np.divmod(np.unique(np.concatenate(keys)), len(images))
    return Pairs(low.astype(np.int32), high.astype(np.int32), typical)


@dataclass(frozen=True)
class Verified:
    """What came of a block of `rows`: verified pairs (`query`, `row`), which rows were `looked_at` (bool) and their
    `typical` correlation; and pairs (2, M) that are promising but `left` to be looked at from the higher row."""

    rows: np.ndarray
    query: np.ndarray
    row: np.ndarray
    typical: np.ndarray
    looked_at: np.ndarray
    left: np.ndarray


def verify_block(
    images: Rows,
    rows: np.ndarray,
    candidates: list[np.ndarray],
    threshold: CopyThreshold,
    certain: np.ndarray,
) -> Verified:
    """The verified pairs of `rows` with their `candidates`. All row numbers are those of `images`.

    A quick look (`curate.sketch`) says which rows are worth aligning with their candidates: those with a promising one
    that is lower, and those that are `certain` (bool). So a pair is aligned once, mostly, and not from both sides.
    """
    others = np.setdiff1d(np.concatenate(candidates), rows)
    together = np.concatenate([rows, others])
    numbered = _numbered(together, candidates)
    small = _small(images, together)
    query, row = _promising(small, numbered)
    query, row = rows[query], together[row]
    looked_at = certain | np.isin(rows, query[row < query])
    worth = np.flatnonzero(looked_at)
    left = ~np.isin(query, rows[worth])
    chosen = np.concatenate([worth, np.setdiff1d(np.concatenate([numbered[k] for k in worth] or [worth]), worth)])
    numbered = _numbered(chosen, [numbered[k] for k in worth])
    small = small[chosen]
    index = ProtectedIndex(small, threshold, 1, _Given(numbered))
    found = index.search(index.images[: len(worth)], np.arange(len(worth))[:, None], within=True)
    typical = np.full(len(rows), alignment.TYPICAL, np.float32)
    typical[worth] = found.typical
    pairs = together[chosen[found.query]], together[chosen[found.protected]]
    return Verified(rows, *pairs, typical, looked_at, np.stack([query[left], row[left]]))


def pair_keys(a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    """One number, int64, for each pair of rows of `count`, whichever comes first."""
    return np.minimum(a, b).astype(np.int64) * count + np.maximum(a, b)


def _numbered(rows: np.ndarray, lists: list[np.ndarray]) -> list[np.ndarray]:
    """Lists of rows as lists of their places in `rows`."""
    order = np.argsort(rows)
    return [order[np.searchsorted(rows, some, sorter=order)] for some in lists]


def _promising(images: np.ndarray, candidates: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The pairs (number of a query, candidate) that may show the same picture; queries are the first images."""
    templates, queries, rows = sketch.templates(images), [_NONE], [_NONE]
    for start in range(0, len(candidates), _FEW):
        for k, window in enumerate(sketch.windows(images[start : min(start + _FEW, len(candidates))]), start):
            others = candidates[k][candidates[k] != k]
            others = others[sketch.correlate(window, templates[others]) >= sketch.PROMISING]
            queries.append(np.full(len(others), k))
            rows.append(others)
    return np.concatenate(queries), np.concatenate(rows)


@dataclass(frozen=True)
class _Given:
    """Candidates that are known: a query's descriptor is its number."""

    rows: list[np.ndarray]

    def search(self, descriptors: np.ndarray, most: int, sure: float) -> list[np.ndarray]:
        return [self.rows[number] for number in descriptors[:, 0].tolist()]


def equal_rows(images: Rows, workers: int | None = None) -> dict[int, np.ndarray]:
    """For each row with the pixels of another one, or its mirrored pixels, the first CANDIDATES rows of this kind."""

    def digests(start: int) -> np.ndarray:
        small = canonical(images[start : start + _READ])
        both = [pixel_sha256(small), pixel_sha256(small[:, :, ::-1])]
        return np.array([int.from_bytes(min(pair)[:8], "big") for pair in zip(*both, strict=True)], np.uint64)

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        found = np.concatenate(list(pool.map(digests, range(0, len(images), _READ))))
    order = np.argsort(found, kind="stable")
    again = np.flatnonzero(found[order][1:] == found[order][:-1]) + 1
    groups: dict[int, list[int]] = {}
    for place in again.tolist():
        groups.setdefault(int(found[order[place]]), [int(order[place - 1])]).append(int(order[place]))
    return {row: np.array(rows[:CANDIDATES]) for rows in groups.values() for row in rows}


def measured_recall(images: Rows, descriptors: Rows, partitions: Partitions, seed: int = 0) -> Recall:
    """Copies of every kind of SAMPLE rows, searched among all rows and in the lists."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x2ECA]))
    sample = np.sort(rng.permutation(len(images))[:SAMPLE])
    pictures = canonical(images[sample])
    queries = copy_descriptor(np.concatenate([synthetic_copies(pictures, kind, rng) for kind in COPIES]))
    original = np.tile(sample, len(COPIES))
    even, odd = parts(queries)
    own = nearness(even, odd, *parts(unpacked(descriptors[sample])))
    own = own[np.arange(len(own)), np.tile(np.arange(len(sample)), len(COPIES))]
    nearer = np.zeros(len(queries), np.int64)
    for start in range(0, len(descriptors), _READ):
        near = nearness(even, odd, *parts(unpacked(descriptors[start : start + _READ])))
        nearer += (near > own[:, None]).sum(axis=1)
    flat = (nearer < CANDIDATES) | (own >= 2 * SURE)
    found = partitions.search(queries, CANDIDATES, SURE)
    both = flat & [row in rows for row, rows in zip(original, found, strict=True)]
    return Recall(float(flat.mean()), float(both.sum() / max(1, flat.sum())))


def _small(images: Rows, rows: np.ndarray) -> np.ndarray:
    """The pictures on the canonical grid, read some at a time: they may be large."""
    out = np.empty((len(rows), SIDE, SIDE, 3), np.uint8)
    for start in range(0, len(rows), 256):
        out[start : start + 256] = canonical(images[rows[start : start + 256]])
    return out
