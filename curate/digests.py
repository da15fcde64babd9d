"""Digests of the pixels that were seen: 16 bytes a picture, where a Python set takes ten times as much."""

from __future__ import annotations

import numpy as np


class Digests:
    """A growing set of SHA-256 digests, of which the first 16 bytes are kept: more than enough to tell pictures apart.

    They lie in sorted arrays, each at least twice as long as the next: adding n digests costs about n log n in all.
    """

    def __init__(self) -> None:
        self._tiers: list[np.ndarray] = []

    def __len__(self) -> int:
        return sum(len(tier) for tier in self._tiers)

    @property
    def nbytes(self) -> int:
        """What they take in memory."""
        return sum(tier.nbytes for tier in self._tiers)

    def add(self, digests: np.ndarray) -> None:
        """Add (N,) digests in hexadecimal, S64."""
        if not len(digests):
            return
        tier = _sorted(_short(digests))
        while self._tiers and len(self._tiers[-1]) <= 2 * len(tier):
            tier = _sorted(np.concatenate([self._tiers.pop(), tier]))
        self._tiers.append(tier)

    def holds(self, digests: np.ndarray) -> np.ndarray:
        """Which of the (N,) digests were added before, bool."""
        short, found = _short(digests), np.zeros(len(digests), bool)
        for tier in self._tiers:
            place = np.searchsorted(tier[:, 0], short[:, 0])
            last = np.searchsorted(tier[:, 0], short[:, 0], "right")
            for step in range(int((last - place).max(initial=0))):  # hardly ever more than one: 8 bytes are equal
                inside = np.flatnonzero(place + step < last)
                found[inside] |= tier[place[inside] + step, 1] == short[inside, 1]
        return found


def raw(digests: np.ndarray) -> np.ndarray:
    """Hexadecimal digests, S64 (N,), as their bytes, uint8 (N, 32)."""
    return np.frombuffer(bytes.fromhex(digests.tobytes().decode()), np.uint8).reshape(-1, 32)


def hexadecimal(digests: np.ndarray) -> np.ndarray:
    """The inverse of `raw`."""
    return np.frombuffer(digests.tobytes().hex().encode(), "S64")


def _short(digests: np.ndarray) -> np.ndarray:
    return raw(np.ascontiguousarray(digests))[:, :16].copy().view(">u8").astype(np.uint64)


def _sorted(short: np.ndarray) -> np.ndarray:
    return short[np.argsort(short[:, 0], kind="stable")]
