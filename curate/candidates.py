"""The rows of a set that may hold the same picture as a query: those with the nearest copy descriptors, exact.

A picture is looked for as it is and mirrored. Mirroring permutes the numbers of a descriptor in pairs, so that the sums
of pairs are an even part, which mirroring keeps, and the differences an odd one, whose sign it changes. Inner products
with the picture and with its mirror image are half the sum and half the difference of the products of these parts: the
two cost as much as one of them.
"""

from __future__ import annotations

import numpy as np

from curate.fingerprints import DIMENSIONS, MIRRORED

_SEGMENT = 1 << 17  # rows of the set of which the products are kept at once
_COLUMNS = 4096  # rows of the set that are compared at once: their products stay in a processor's cache
_GROUP = 64  # rows, at most, of which only the nearest counts in the first look


class Candidates:
    """Copy descriptors of a set, to be searched for the nearest of each query."""

    def __init__(self, descriptors: np.ndarray) -> None:
        """`descriptors` are (P, 144) float32 as `copy_descriptor` gives them."""
        self._even, self._odd = parts(descriptors)

    def __len__(self) -> int:
        return len(self._even)

    def search(self, descriptors: np.ndarray, most: int, sure: float) -> list[np.ndarray]:
        """The rows to look at for each of the (Q, 144) descriptors, ascending, int64.

        How near a row is, is the inner product of its descriptor with that of the query, and again with that of the
        mirrored query. The rows are those of the `most` largest of all these products, so that one that is near either
        way counts twice, more where several are as near as the last, and all that are at least `sure`. Products are
        whole multiples of 2^-22 and small, exact in float32, so that the rows do not depend on blocks, on threads or on
        the processor.
        """
        if 2 * len(self) <= most:
            return [np.arange(len(self))] * len(descriptors)
        even, odd = parts(descriptors)
        reached = np.float32(2 * sure)
        segments = [self._nearest(even, odd, start, most, reached) for start in range(0, len(self), _SEGMENT)]
        found = []
        for query, part in enumerate(zip(*segments, strict=True)):
            rows, near = (np.concatenate(values) for values in zip(*part, strict=True))
            turned = near - 2 * np.abs(self._odd[rows] @ odd[query])  # the other way round
            least = np.partition(np.concatenate([near, turned]), -most)[-most]
            found.append(rows[near >= min(least, reached)])
        return found

    def _nearest(
        self, even: np.ndarray, odd: np.ndarray, start: int, most: int, reached: np.float32
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each query the rows of a segment, `most` and not many more, that may be among the nearest of all or have
        `reached` enough, and twice how near they are."""
        count = min(_SEGMENT, len(self) - start)
        group = max(1, min(_GROUP, count // (8 * most)))
        near = np.empty((len(even), -(-count // group) * group), np.float32)
        near[:, count:] = -np.inf
        for first in range(0, count, _COLUMNS):
            columns = slice(start + first, start + min(first + _COLUMNS, count))
            turned = odd @ self._odd[columns].T
            kept = even @ self._even[columns].T
            np.add(kept, np.abs(turned, out=turned), out=near[:, first : first + kept.shape[1]])
        # `most` rows reach this value and few more do: it saves sorting all of them
        nearest = near.reshape(len(near), group, -1).max(axis=1) if group > 1 else near
        most = min(most, nearest.shape[1])
        least = np.minimum(np.partition(nearest, -most, axis=1)[:, -most], reached)
        query, row = np.nonzero(near >= least[:, None])
        ends = np.searchsorted(query, np.arange(1, len(near)))
        values = np.split(near[query, row], ends)
        return list(zip(np.split(row + start, ends), values, strict=True))


def parts(descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums and differences of the numbers that mirroring exchanges, (N, 72) float32 each."""
    first, second = descriptors[:, _FIRST], descriptors[:, MIRRORED[_FIRST]]
    return np.ascontiguousarray(first + second, np.float32), np.ascontiguousarray(first - second, np.float32)


_FIRST = np.flatnonzero(np.arange(DIMENSIONS) < MIRRORED)  # of each pair; mirroring leaves no number in its place
