"""The nearest ID training image of each row."""

from __future__ import annotations

import faiss
import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]


class IdIndex:
    """Nearest ID training image by inner product of unit vectors (cosine similarity), exact."""

    def __init__(self, vectors: np.ndarray, labels: np.ndarray) -> None:
        """Index (N, D) float32 unit vectors with their (N,) class labels."""
        self.labels = labels
        self.index = faiss.IndexFlatIP(vectors.shape[1])
        self.index.add(np.ascontiguousarray(vectors, dtype=np.float32))

    def nearest(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Similarity (M,) float32 to the nearest ID image, and that image's row (M,) int64.

        The same bits on any number of threads.
        """
        if not len(vectors):
            return np.empty(0, np.float32), np.empty(0, np.int64)
        with threadpool_limits(1, "blas"):  # how BLAS shares a product out among threads decides its last bits
            similarity, row = self.index.search(np.ascontiguousarray(vectors, dtype=np.float32), 1)
        return similarity[:, 0], row[:, 0]
