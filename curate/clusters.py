"""Clusters of embeddings: seeded spherical k-means++ (FAISS), the same on any number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import faiss
import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from curate.partitions import Rows

MOST = 256  # clusters by default, at most
ITERATIONS = 20
POINTS = 256  # rows a cluster is trained on, at most; all rows are assigned
_BLOCK = 65_536  # rows assigned at once


def default_clusters(rows: int) -> int:
    """The number of clusters where none is given: the square root of the rows, at most 256, at least 1."""
    return int(max(1, min(MOST, round(rows**0.5))))


def cluster(vectors: Rows, rows: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """The cluster of each of the given rows, (n,) int64 in [0, clusters), by cosine similarity.

    Args:
        vectors: (N, D) float16 or float32 of unit length; may be a file, of which blocks are read.
        rows: (n,) int64, the row numbers to be clustered.
        clusters: how many; no more than rows are made.
        seed: decides the rows that are trained on and the first centroids.
    """
    clusters = min(clusters, len(rows))
    if not len(rows):
        return np.empty(0, np.int64)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0xC1]))
    trained_on = rows[np.sort(rng.permutation(len(rows))[: clusters * POINTS])]
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        clusters,
        niter=ITERATIONS,
        seed=int(rng.integers(2**31 - 1)),
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=POINTS,
    )
    found = np.empty(len(rows), np.int64)
    with one_thread():
        points = np.ascontiguousarray(vectors[trained_on], np.float32)
        kmeans.train(points, init_centroids=spread(points, clusters, rng))
        for start in range(0, len(rows), _BLOCK):
            block = np.ascontiguousarray(vectors[rows[start : start + _BLOCK]], np.float32)
            found[start : start + len(block)] = kmeans.index.search(block, 1)[1][:, 0]
    return found


def spread(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """First centroids, (count, D): points drawn far from those drawn before (k-means++, Arthur & Vassilvitskii 2007).

    Drawn uniformly they would nearly all lie in the largest groups, and k-means would leave the small ones together.
    """
    chosen = [int(rng.integers(len(points)))]
    distance = np.full(len(points), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.maximum(0, 1 - points @ points[chosen[-1]]).astype(np.float64))
        sums = np.cumsum(distance)
        draw = rng.random() * sums[-1]
        chosen.append(min(int(np.searchsorted(sums, draw, side="right")), len(points) - 1))
    return points[chosen]


@contextmanager
def one_thread() -> Iterator[None]:
    """FAISS and BLAS on one thread: sums in another order round otherwise, and a row would change its cluster."""
    threads = faiss.omp_get_max_threads()
    with threadpool_limits(1):
        faiss.omp_set_num_threads(1)
        try:
            yield
        finally:
            faiss.omp_set_num_threads(threads)
