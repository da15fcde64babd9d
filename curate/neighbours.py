"""ID-class neighbours: corpus rows whose nearest ID training image is as near as those of held-out ID images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

CURVE_POINTS = 21


@dataclass(frozen=True)
class IdThreshold:
    """Rows at or above `similarity` count as showing an ID class.

    `curve` lists (recall of held-out ID images, similarity threshold that gives it), from recall 0 to 1.
    """

    recall: float
    similarity: float
    curve: tuple[tuple[float, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return {"recall": self.recall, "similarity": self.similarity, "curve": [list(point) for point in self.curve]}


class IdIndex:
    """Nearest ID training image by inner product of unit vectors (cosine similarity), exact."""

    def __init__(self, vectors: np.ndarray, labels: np.ndarray) -> None:
        """Index (N, D) float32 unit vectors with their (N,) class labels."""
        self.labels = labels
        self.index = faiss.IndexFlatIP(vectors.shape[1])
        self.index.add(np.ascontiguousarray(vectors, dtype=np.float32))

    def nearest(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Similarity (M,) float32 to the nearest ID image, and that image's row (M,) int64."""
        if not len(vectors):
            return np.empty(0, np.float32), np.empty(0, np.int64)
        similarity, row = self.index.search(np.ascontiguousarray(vectors, dtype=np.float32), 1)
        return similarity[:, 0], row[:, 0]


def calibrate(similarity: np.ndarray, recall: float) -> IdThreshold:
    """The similarity that a share `recall` of held-out ID images reaches; recall 0 switches the filter off.

    Args:
        similarity: (N,) nearest-neighbour similarities of ID images that are not in the index.
        recall: 0 to 1.
    """

    def threshold(share: float) -> float:
        if share <= 0:
            return 2.0  # above any cosine
        ordered = np.sort(similarity)[::-1]
        return float(ordered[max(0, int(np.ceil(share * len(ordered))) - 1)])

    shares = np.linspace(0, 1, CURVE_POINTS)
    return IdThreshold(recall, threshold(recall), tuple((round(float(s), 2), threshold(float(s))) for s in shares))
