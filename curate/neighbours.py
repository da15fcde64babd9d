"""The nearest ID training image of each row."""

from __future__ import annotations

import faiss
import numpy as np

_AS_NEAR = 4  # rows that are compared once more, since the last bits of FAISS's products depend on its threads


class IdIndex:
    """Nearest ID training image by inner product of unit vectors (cosine similarity), exact."""

    def __init__(self, vectors: np.ndarray, labels: np.ndarray) -> None:
        """Index (N, D) float32 unit vectors with their (N,) class labels."""
        self.labels = labels
        self.index = faiss.IndexFlatIP(vectors.shape[1])
        self.index.add(np.ascontiguousarray(vectors, dtype=np.float32))

    def nearest(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Similarity (M,) float32 to the nearest ID image, and that image's row (M,) int64, the lowest of equal ones.

        The same bits on any number of threads.
        """
        if not len(vectors):
            return np.empty(0, np.float32), np.empty(0, np.int64)
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        near = np.sort(self.index.search(vectors, min(_AS_NEAR, self.index.ntotal))[1], axis=1)
        indexed = faiss.rev_swig_ptr(self.index.get_xb(), self.index.ntotal * self.index.d).reshape(-1, self.index.d)
        similarity = np.stack([np.einsum("nd,nd->n", vectors, indexed[rows]) for rows in near.T], axis=1)
        best = similarity.argmax(axis=1)[:, None]
        return np.take_along_axis(similarity, best, axis=1)[:, 0], np.take_along_axis(near, best, axis=1)[:, 0]
