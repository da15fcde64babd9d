"""ID-ness: one number a row for how much it looks like an image of the ID set, and the threshold on it.

Three measurements, each larger for what looks more like an ID class: the similarity to the nearest ID training image;
the cosine to the class means in the space in which the shared within-class covariance is the identity (the angle that
belongs to the Mahalanobis distance of Lee et al., NeurIPS 2018), seen from midway between the ID set and the corpus;
and the free energy of the classifier that embedded the row or else of a linear probe, the linear discriminant of the
ID classes. Each is divided by its spread over the corpus, the second counts twice, and the sum is put on the scale of
held-out ID images: 0 is their mean, -1 one standard deviation below. No label of the corpus is used.
docs/id-classes.md has the figures and what else was tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.partitions import Rows

CURVE_POINTS = 21
WEIGHTS = {"neighbour": 1, "class": 2, "energy": 1}
SHRINKAGE = 1.0  # of the within-class covariance, in units of its mean eigenvalue
SHARPNESS = 5.0  # of the soft maximum over classes
BLOCK = 4096  # rows computed at a time; fixed, as sums of another block could round otherwise


@dataclass(frozen=True)
class IdThreshold:
    """Rows at or above `id_ness` count as showing an ID class; None where the filter is off.

    `curve` lists (recall of held-out ID images, threshold that gives it), from recall 0 to 1.
    """

    recall: float
    id_ness: float | None
    curve: tuple[tuple[float, float | None], ...]

    def reached(self, id_ness: np.ndarray) -> np.ndarray:
        """Which rows count as showing an ID class, bool (N,)."""
        return np.zeros(len(id_ness), bool) if self.id_ness is None else id_ness >= np.float32(self.id_ness)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return {"recall": self.recall, "id_ness": self.id_ness, "curve": [list(point) for point in self.curve]}


@dataclass(frozen=True)
class Measured:
    """Rows as the embedder saw them: `vectors` (N, D) of unit length, float16 or float32, in an array or a file;
    `similarity` (N,) to the nearest ID training image, `energy` (N,) of the classifier, None where there is none."""

    vectors: Rows
    similarity: np.ndarray
    energy: np.ndarray | None = None


@dataclass(frozen=True)
class IdClasses:
    """Classes of the ID training images: `means` (K, D) and the (D, D) matrix that whitens their shared covariance."""

    means: np.ndarray
    whiten: np.ndarray
    centre: np.ndarray

    @classmethod
    def fit(cls, vectors: np.ndarray, labels: np.ndarray) -> IdClasses:
        """Fit to the (N, D) vectors of ID training images with their (N,) labels; all float64."""
        classes, of_row = np.unique(labels, return_inverse=True)
        dimensions = vectors.shape[1]
        sums, outer, centre = np.zeros((len(classes), dimensions)), np.zeros((dimensions,) * 2), np.zeros(dimensions)
        for start, block in _blocks(vectors):
            np.add.at(sums, of_row[start : start + len(block)], block)
            outer += block.T @ block
        counts = np.bincount(of_row, minlength=len(classes))
        means, centre = sums / counts[:, None], sums.sum(axis=0) / len(vectors)
        within = outer / len(vectors) - (means * (counts / len(vectors))[:, None]).T @ means
        mean_eigenvalue = max(float(np.trace(within)) / dimensions, 1e-12)
        values, directions = np.linalg.eigh(within + SHRINKAGE * mean_eigenvalue * np.eye(dimensions))
        return cls(means, directions / np.sqrt(np.maximum(values, 1e-12)), centre)


@dataclass(frozen=True)
class IdScale:
    """ID-ness as calibrated on a corpus and on held-out ID images; `score` gives it for any rows."""

    classes: IdClasses
    origin: np.ndarray  # (D,) midway between the mean ID image and the mean row of the corpus
    spread: np.ndarray  # (3,) standard deviation of each measurement over the corpus
    zero: float = 0.0
    unit: float = 1.0

    @classmethod
    def calibrate(cls, classes: IdClasses, corpus: Measured, held_out: Measured) -> tuple[IdScale, np.ndarray]:
        """The scale, and the ID-ness of the held-out ID images, float32 (H,)."""
        return cls.calibrate_and_score(classes, corpus, held_out)[:2]

    @classmethod
    def calibrate_and_score(
        cls, classes: IdClasses, corpus: Measured, held_out: Measured
    ) -> tuple[IdScale, np.ndarray, np.ndarray]:
        """As `calibrate`, with the ID-ness of the corpus, float32 (N,), for which it is measured only once."""
        total = np.zeros(classes.centre.shape)
        for _, block in _blocks(corpus.vectors):
            total += block.sum(axis=0)
        middle = (total / max(len(corpus.vectors), 1) + classes.centre) / 2 if len(corpus.vectors) else classes.centre
        raw = cls(classes, middle, np.ones(3))
        of_held = raw.measurements(held_out)
        measured = raw.measurements(corpus) if len(corpus.vectors) else of_held
        deviation = measured.std(axis=0)
        # what is the same for every row tells nothing; dividing by next to nothing would make noise of it
        spread = np.where(deviation > 1e-9, deviation, np.inf)
        sums = _combine(of_held, spread)
        unit = float(sums.std())
        scale = cls(classes, middle, spread, float(sums.mean()), unit if unit > 1e-9 else 1.0)
        of_corpus = _combine(measured, spread) if len(corpus.vectors) else np.empty(0)
        return scale, scale._on_scale(sums), scale._on_scale(of_corpus)

    def score(self, rows: Measured) -> np.ndarray:
        """ID-ness of rows, float32 (N,), to four decimals: rounding hides in which order sums were made."""
        return self._on_scale(_combine(self.measurements(rows), self.spread))

    def measurements(self, rows: Measured) -> np.ndarray:
        """The three measurements, (N, 3) float64: nearest neighbour, class, energy (the negative of free energy)."""
        means, whiten = self.classes.means, self.classes.whiten
        centred = means - self.classes.centre  # the discriminant: softmax(x W^-1 m - m W^-1 m / 2) over classes
        discriminant = whiten @ (centred @ whiten).T
        offset = -0.5 * ((centred @ whiten) ** 2).sum(axis=1)
        towards = _unit((means - self.origin) @ whiten)
        measured = np.empty((len(rows.vectors), 3))
        measured[:, 0] = rows.similarity
        for start, block in _blocks(rows.vectors):
            place = slice(start, start + len(block))
            cosine = _unit((block - self.origin) @ whiten) @ towards.T
            measured[place, 1] = _soft_maximum(SHARPNESS * cosine) / SHARPNESS
            if rows.energy is None:
                measured[place, 2] = _soft_maximum((block - self.classes.centre) @ discriminant + offset)
            else:
                measured[place, 2] = -rows.energy[place]
        return measured

    def to_dict(self) -> dict[str, Any]:
        """What the manifest says of the scale."""
        spread = [float(f"{value:.6g}") if np.isfinite(value) else None for value in self.spread]
        return {"weights": dict(WEIGHTS), "spread": dict(zip(WEIGHTS, spread, strict=True))}

    def _on_scale(self, sums: np.ndarray) -> np.ndarray:
        return np.round((sums - self.zero) / self.unit, 4).astype(np.float32)


def calibrate(id_ness: np.ndarray, recall: float) -> IdThreshold:
    """The ID-ness that a share `recall` of held-out ID images reaches; recall 0 switches the filter off.

    Args:
        id_ness: (N,) ID-ness of ID images that it was not fitted to.
        recall: 0 to 1.
    """
    ordered = np.sort(np.asarray(id_ness, np.float32))[::-1]

    def threshold(share: float) -> float | None:
        if share <= 0:
            return None
        value = ordered[max(0, int(np.ceil(share * len(ordered) - 1e-9)) - 1)]
        return round(float(value), 4)

    shares = np.linspace(0, 1, CURVE_POINTS)
    return IdThreshold(recall, threshold(recall), tuple((round(float(s), 2), threshold(float(s))) for s in shares))


def _blocks(vectors: Rows) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(vectors), BLOCK):
        yield start, np.asarray(vectors[start : start + BLOCK], np.float64)


def _combine(measured: np.ndarray, spread: np.ndarray) -> np.ndarray:
    weights = np.array(list(WEIGHTS.values()), np.float64)
    return np.asarray((measured * (weights / spread / weights.sum())).sum(axis=1))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.sqrt((vectors * vectors).sum(axis=1, keepdims=True)), 1e-12)


def _soft_maximum(values: np.ndarray) -> np.ndarray:
    largest = values.max(axis=1)
    return np.asarray(largest + np.log(np.exp(values - largest[:, None]).sum(axis=1)))
