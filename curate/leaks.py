"""Leaks: corpus images that are the same picture as a protected image.

Candidates come from the copy descriptor (`curate.candidates`), of the image as it is and mirrored; each is then
verified on aligned pixels. Candidates are many and cheap, verification decides.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from curate import alignment
from curate.candidates import Candidates
from curate.copies import COPIES, CopyThreshold, synthetic_copies
from curate.fingerprints import DIMENSIONS, canonical, copy_descriptor, pixel_sha256

__all__ = ["CopyThreshold", "Matches", "ProtectedIndex", "aligned_similarity", "calibrate_copies"]

aligned_similarity = alignment.aligned_similarity

CANDIDATES = 128  # looked at for each query, nearest first
CANDIDATES_WITHIN = 32  # the same within a set, where every pair is looked at from both sides
SURE = 0.9  # every candidate with a descriptor this similar is looked at too, however many there are
ROUGHLY = 32  # candidates that are correlated in full: these with the highest correlation at half the resolution
ROUGHLY_ALIKE = 0.4  # and all from this one on; from 0.6 in full it is at least 0.46 (1,500 pairs of 750 images)
PROMISING = 0.6  # a coarse correlation from which a pair is verified in full
TYPICAL_RANK = 10  # the coarse correlation of this rank is what a query reaches with different pictures

CALIBRATION_COPIES = 150  # of each kind
CALIBRATION_PAIRS = 1000  # images whose most similar different image is looked for
CALIBRATION_RECALL = 0.96
CALIBRATION_DIFFERENT = 0.02  # ID sets repeat themselves, CIFAR-10 for one
CALIBRATION_LEAST = 0.9  # in a set full of copies the most alike are no different pictures: keep this much recall
LIMITS = (0.8, 0.856)  # the upper one flags about 485 test images of CIFAR-10 as copies of train images

_BLOCK = 1024  # queries searched at once
_CHUNK = 64  # queries verified at once by one thread


@dataclass(frozen=True)
class Matches:
    """Every verified pair of the same picture, ordered by query and then by falling similarity.

    `query`, `protected` int64 (M,) row numbers; `similarity` float32 (M,); `kind` (M,) "exact" (the same shape and
    pixels) or "near". For each query, float32 (Q,): `typical`, the correlation it reaches with different pictures, and
    `largest_left`, the largest similarity below the threshold among its candidates, 0 where there is none; and the row
    that has it, `nearest_left` int64 (Q,), -1 where there is none.
    """

    query: np.ndarray
    protected: np.ndarray
    similarity: np.ndarray
    kind: np.ndarray
    typical: np.ndarray
    largest_left: np.ndarray
    nearest_left: np.ndarray


class CandidateSearch(Protocol):
    """What finds the rows to look at, as `Candidates` does."""

    def search(self, descriptors: np.ndarray, most: int, sure: float) -> list[np.ndarray]:
        """The rows for each of the descriptors, int64."""
        ...


class ProtectedIndex:
    """Protected images, indexed to be searched for copies: about 3.3 kB an image besides the images themselves."""

    def __init__(
        self,
        images: np.ndarray,
        threshold: CopyThreshold,
        workers: int | None = None,
        candidates: CandidateSearch | None = None,
    ) -> None:
        """`images` is uint8 (P, H, W, 3); `workers` threads (default: one a core) change the speed and nothing else.

        `candidates` finds the rows to look at for the descriptors of a query; by default those nearest of all.
        """
        self.threshold = threshold
        self.workers = workers or os.cpu_count() or 1
        self._images = images
        self._rows_of: dict[bytes, list[int]] = {}
        self._templates = np.empty((len(images), alignment.COARSE, alignment.AREA), np.int8)
        self._rough = np.empty((len(images), alignment.COARSE, 2, alignment.ROUGH_AREA), np.int16)
        descriptors = np.empty((len(images), DIMENSIONS), np.float32)

        def look_at(start: int) -> list[bytes]:
            rows = slice(start, start + _BLOCK)
            self._templates[rows] = alignment.templates(images[rows], alignment.COARSE)
            self._rough[rows] = alignment.rough_templates(self._templates[rows])
            if candidates is None:
                descriptors[rows] = copy_descriptor(images[rows])
            return pixel_sha256(images[rows])

        with threadpool_limits(1, "blas"), ThreadPoolExecutor(self.workers) as pool:
            digests = chain.from_iterable(pool.map(look_at, range(0, len(images), _BLOCK)))
            for row, digest in enumerate(digests):
                self._rows_of.setdefault(digest, []).append(row)
        self._candidates = candidates or Candidates(descriptors)

    def __len__(self) -> int:
        return len(self._templates)

    @property
    def images(self) -> np.ndarray:
        """The protected images, uint8 (P, H, W, 3)."""
        return self._images

    def search(
        self,
        images: np.ndarray,
        descriptors: np.ndarray | None = None,
        *,
        within: bool = False,
        first: int = 0,
        advance: Callable[[int], object] | None = None,
    ) -> Matches:
        """The protected images that each of `images` (uint8 (Q, H, W, 3)) repeats.

        `descriptors` are those of `copy_descriptor(images)` if they are known already. With `within` the images are
        the protected images themselves, those from row `first` on, and no row is matched with itself. `advance` is told
        how many queries are done, block by block.
        """
        if descriptors is None:
            descriptors = copy_descriptor(images)
        typical = np.zeros(len(images), np.float32)
        largest_left = np.zeros(len(images), np.float32)
        nearest_left = np.full(len(images), -1)
        pairs = [_Pairs.none()]
        for start in range(0, len(images), _BLOCK):
            rows = slice(start, min(start + _BLOCK, len(images)))
            own = first + start if within else None
            block, typical[rows] = self._search_block(images[rows], descriptors[rows], own)
            block.query += start
            left = (block.similarity < self.threshold.similarity) & ~block.exact
            np.maximum.at(largest_left, block.query[left], block.similarity[left])
            nearest = left & (block.similarity == largest_left[block.query])
            np.maximum.at(nearest_left, block.query[nearest], block.row[nearest])
            pairs.append(block.where(~left))
            if advance:
                advance(rows.stop - rows.start)
        found = _Pairs.joined(pairs)
        found = found.where(np.lexsort((found.row, -found.similarity, ~found.exact, found.query)))
        kind = np.where(found.exact, "exact", "near")
        return Matches(found.query, found.row, found.similarity, kind, typical, largest_left, nearest_left)

    def _search_block(self, images: np.ndarray, descriptors: np.ndarray, own: int | None) -> tuple[_Pairs, np.ndarray]:
        """The pairs of a block worth naming, query rows counted from its start, and each query's typical correlation.

        `own` is the protected row of the block's first image when the queries are protected images themselves.
        """
        most = CANDIDATES if own is None else CANDIDATES_WITHIN
        same, mirrored = self._equal(images), self._equal(images[:, :, ::-1])
        small = canonical(images)

        def verify(first: int) -> tuple[_Pairs, np.ndarray]:
            candidates = self._candidates.search(descriptors[first : first + _CHUNK], most, SURE)
            seen, looked_at = [], []
            for few in range(first, min(first + _CHUNK, len(small)), alignment.FEW):
                seen += list(alignment.windows(small[few : few + alignment.FEW]))
                for k, window in enumerate(seen[few - first :], few):
                    rows = np.unique(np.concatenate([candidates[k - first], same[k], mirrored[k]]))
                    if own is not None:
                        rows = rows[rows != own + k]
                    looked_at.append(self._promising(window, rows, same[k], mirrored[k]))
            full = alignment.templates(self._small(np.concatenate([rows for rows, *_ in looked_at])))
            ends = np.cumsum([len(rows) for rows, *_ in looked_at])
            parts = [
                (rows, *alignment.align(window, template), *more)
                for window, template, (rows, *more) in zip(seen, np.split(full, ends[:-1]), looked_at, strict=True)
            ]
            row, value, place, scale, exact, equal = (np.concatenate([part[k] for part in parts]) for k in range(6))
            typical = np.concatenate([part[6] for part in parts])
            query = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
            colour = alignment.colour_correlation(small[first + query], self._small(row), place, scale)
            score = alignment.similarity(value, colour, typical[query])
            return _Pairs(first + query, row, np.where(equal, np.float32(1), score), exact), typical

        with threadpool_limits(1, "blas"), ThreadPoolExecutor(self.workers) as pool:
            chunks = list(pool.map(verify, range(0, len(images), _CHUNK)))
        return _Pairs.joined([pairs for pairs, _ in chunks]), np.concatenate([typical for _, typical in chunks])

    def _equal(self, images: np.ndarray) -> list[np.ndarray]:
        """The rows with the pixels of each image: whatever correlation makes of plain pictures, these are copies."""
        return [np.array(self._rows_of.get(digest, ()), np.int64) for digest in pixel_sha256(images)]

    def _promising(
        self, window: np.ndarray, rows: np.ndarray, same: np.ndarray, mirrored: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of the candidates of one query those that are worth a closer look (rows, same pixels, same pixels or
        mirrored ones), and the query's typical correlation."""
        exact = np.isin(rows, same)
        equal = exact | np.isin(rows, mirrored)
        if len(rows) > ROUGHLY:
            roughly = alignment.rough_correlate(alignment.rough(window), self._rough[rows])
            alike = equal | (roughly >= min(np.partition(roughly, -ROUGHLY)[-ROUGHLY], ROUGHLY_ALIKE))
            rows, exact, equal = rows[alike], exact[alike], equal[alike]
        coarse = alignment.correlate(window, self._templates[rows])
        rank = min(TYPICAL_RANK, len(rows))
        typical = np.partition(coarse, -rank)[-rank:][:1] if rank == TYPICAL_RANK else np.zeros(1, np.float32)
        promising = equal | (coarse >= PROMISING)
        if len(rows):
            promising[coarse.argmax()] = True
        return rows[promising], exact[promising], equal[promising], typical

    def _small(self, rows: np.ndarray) -> np.ndarray:
        return canonical(self._images[rows])


@dataclass
class _Pairs:
    query: np.ndarray
    row: np.ndarray
    similarity: np.ndarray
    exact: np.ndarray

    def where(self, rows: np.ndarray) -> _Pairs:
        return _Pairs(self.query[rows], self.row[rows], self.similarity[rows], self.exact[rows])

    @classmethod
    def none(cls) -> _Pairs:
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, bool))

    @classmethod
    def joined(cls, parts: list[_Pairs]) -> _Pairs:
        return cls(*(np.concatenate([getattr(p, k) for p in parts]) for k in ("query", "row", "similarity", "exact")))


def calibration_sample(images: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """`count` of `images`, all where there are fewer, drawn by `seed`: what to calibrate on in place of a whole set."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0xCA1]))
    return images[rng.permutation(len(images))[:count]]


def calibrate_copies(images: np.ndarray, seed: int = 0, workers: int | None = None) -> CopyThreshold:
    """The similarity from which two pictures are the same, from synthetic copies of `images` and pairs of them.

    Of `images` (uint8 (N, H, W, 3), all different pictures as far as is known; some thousand are enough) a seeded
    sample is copied in every way of COPIES and searched among all. The threshold is the similarity that
    CALIBRATION_RECALL of these copies reach, kept within LIMITS, unless more than CALIBRATION_DIFFERENT of the images
    would then be taken for a copy of another one; it rises until they are not, or until CALIBRATION_LEAST of the copies
    are found: a set may be full of copies.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0xC0B1]))
    every = CopyThreshold(-1.0, {}, 0.0, len(images), seed, {})
    index = ProtectedIndex(images, every, workers)
    sample = np.sort(rng.permutation(len(images))[:CALIBRATION_COPIES])
    reached = {}
    for kind in COPIES:
        found = index.search(synthetic_copies(images[sample], kind, rng))
        own = sample[found.query] == found.protected
        reached[kind] = np.zeros(len(sample))
        reached[kind][found.query[own]] = found.similarity[own]
    found = index.search(images[:CALIBRATION_PAIRS], within=True)
    different = np.zeros(min(len(images), CALIBRATION_PAIRS))
    near = found.kind == "near"  # the same pixels twice are no evidence of how alike different pictures are
    np.maximum.at(different, found.query[near], found.similarity[near])

    copies = np.concatenate(list(reached.values()))
    threshold = float(np.clip(np.quantile(copies, 1 - CALIBRATION_RECALL), *LIMITS))
    most = max(LIMITS[1], float(np.quantile(copies, 1 - CALIBRATION_LEAST)))
    threshold = max(threshold, min(most, float(np.quantile(different, 1 - CALIBRATION_DIFFERENT))))
    threshold = min(round(threshold, 3), 0.99)
    grid = np.round(np.linspace(0, 1, 101), 2)
    return CopyThreshold(
        similarity=threshold,
        recall={kind: float((x >= threshold).mean()) for kind, x in reached.items()},
        different=float((different >= threshold).mean()),
        images=len(images),
        seed=seed,
        curve={
            "similarity": grid.tolist(),
            "copies": [float((copies >= t).mean()) for t in grid],
            "different": [float((different >= t).mean()) for t in grid],
        },
    )
