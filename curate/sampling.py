"""Which of the surviving rows are kept, and in which order they are written.

Every strategy gives an order of all rows that it may keep, and `size` rows of its beginning are kept. The order does
not depend on `size`: sets of different sizes with the same seed and rows are nested, and any prefix of a set is itself
a sample of its kind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.clusters import cluster, default_clusters
from srood.errors import InputError

STRATEGIES = "uniform, stratified, clusters, hard:LOW-HIGH or diverse[:LOW-HIGH]"
DIVERSE_BAND = (0.25, 0.75)
BAND = re.compile(r"(\d*\.?\d+)-(\d*\.?\d+)")


@dataclass(frozen=True)
class Plan:
    """A parsed `--sample`: the strategy, and the band of ID-likeness as quantiles, (0, 1) for all rows."""

    strategy: str = "uniform"
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Sample:
    """What was drawn.

    `rows` int64 (n,), row numbers in the order in which they are written; `cluster` int64 (N,), -1 for rows that did
    not survive or lie outside the band; `outside` int64, survivors outside the band; `record`, for the manifest.
    """

    rows: np.ndarray
    cluster: np.ndarray
    outside: np.ndarray
    record: dict[str, Any]


def parse(text: str) -> Plan:
    """Read `--sample`.

    Raises:
        InputError: no such strategy, or a band that is none or has the open tail in it.
    """
    strategy, colon, band = text.partition(":")
    if strategy not in ("uniform", "stratified", "clusters", "hard", "diverse"):
        raise InputError(f"--sample {text}: no such strategy; one of {STRATEGIES}")
    if strategy in ("uniform", "stratified", "clusters"):
        if colon:
            raise InputError(f"--sample {text}: {strategy} takes no band; only hard and diverse do")
        return Plan(strategy)
    if strategy == "diverse" and not colon:
        return Plan(strategy, *DIVERSE_BAND)
    found = BAND.fullmatch(band)
    if not found:
        raise InputError(f"--sample {text}: needs a band of quantiles, as in {strategy}:0.5-0.9")
    low, high = float(found.group(1)), float(found.group(2))
    if not 0 <= low < high <= 1:
        raise InputError(f"--sample {text}: the band must have 0 <= LOW < HIGH < 1")
    if high == 1:
        raise InputError(
            f"--sample {text}: HIGH must be below 1, such as 0.9: the open tail, the rows most like ID images, is "
            f"mostly ID classes and leaks that the filters missed"
        )
    return Plan(strategy, low, high)


def draw(
    plan: Plan,
    columns: Mapping[str, Any],
    survivors: np.ndarray,
    size: int,
    seed: int,
    clusters: int | None = None,
) -> Sample:
    """Draw at most `size` of the surviving rows.

    Args:
        columns: `label` (N,) int64, -1 for none (such rows are one stratum); `embedding` (N, D) of unit length, float16
            or float32; `id_ness` (N,), or without it `id_similarity`, larger = more like an ID image.
        survivors: int64 row numbers, ascending. The band is of the quantiles of their ID-likeness, both ends within.
        clusters: how many k-means clusters of the rows in the band; by default their square root, at most 256.
    """
    by = "id_ness" if "id_ness" in columns else "id_similarity"
    record: dict[str, Any] = {"strategy": plan.strategy, "seed": seed, "rows": len(survivors)}
    rows = survivors
    if plan.strategy in ("hard", "diverse") and len(rows):
        inside, lowest, highest = within(columns[by][rows], plan.low, plan.high)
        rows = rows[inside]
        edges = {"from": round(lowest, 6), "to": round(highest, 6), "rows": len(rows)}
        record["band"] = {"of": by, "low": plan.low, "high": plan.high, **edges}

    number = min(clusters or default_clusters(len(rows)), len(rows))
    of_row = np.full(len(columns["label"]), -1, np.int64)
    of_row[rows] = cluster(columns["embedding"], rows, number, seed)
    record["clusters"] = number

    order = survivors[uniform(len(survivors), len(survivors), seed)]
    strata = columns["label"] if plan.strategy == "stratified" else of_row
    if plan.strategy == "hard":
        order = order[np.isin(order, rows)]
    elif plan.strategy == "diverse":
        order = rows[np.argsort(-columns[by][rows], kind="stable")]
    if plan.strategy in ("stratified", "clusters", "diverse"):
        order = order[in_turns(strata[order], seed)]
    chosen = order[:size]
    if plan.strategy in ("stratified", "clusters", "diverse") and len(chosen):
        drawn = np.unique(strata[chosen], return_counts=True)[1]
        least_most = {"least": int(drawn.min()), "most": int(drawn.max())}
        record["strata"] = {"all": len(np.unique(strata[rows])), "drawn": len(drawn), **least_most}
    return Sample(chosen, of_row, np.setdiff1d(survivors, rows), record)


def within(likeness: np.ndarray, low: float, high: float) -> tuple[np.ndarray, float, float]:
    """Which values lie between two of their quantiles (NumPy's, both ends within), bool (N,), and these two values."""
    likeness = likeness.astype(np.float64)
    lowest, highest = np.quantile(likeness, [low, high])
    return (likeness >= lowest) & (likeness <= highest), float(lowest), float(highest)


def remarks(plan: Plan, embedder: str, label: np.ndarray) -> list[str]:
    """What a person should know of a strategy that the input does not suit; `label` (n,) of the rows to draw from."""
    lines = []
    if plan.strategy == "stratified" and len(label) and (label < 0).all():
        lines.append("--sample stratified: the corpus has no labels, so this is a uniform sample; try clusters")
    if plan.strategy in ("clusters", "hard", "diverse") and embedder == "thumbnail":
        what = "clusters are" if plan.strategy == "clusters" else "ID-likeness is"
        lines.append(f"--sample {plan.strategy}: with thumbnails {what} of layout and colour, not of what is shown")
    return lines


def uniform(count: int, size: int, seed: int) -> np.ndarray:
    """Row numbers of a uniform sample without replacement, (min(count, size),) int64, in random order.

    The order is one seeded permutation of all rows: any prefix is a uniform sample too, and samples of different sizes
    with the same seed are nested.
    """
    return np.random.default_rng(np.random.SeedSequence([seed, 0x5A3])).permutation(count)[:size]


def in_turns(strata: np.ndarray, seed: int) -> np.ndarray:
    """Positions, a permutation of N, such that strata take turns: the first row of each, then the second of each, ...

    `strata` is (N,) int64, the stratum of each row; rows of one stratum keep their order. In any prefix no stratum has
    two rows fewer than another unless it has run out: the others share its part. Which strata come first in a round is
    drawn by `seed`, round by round.
    """
    by_stratum = np.argsort(strata, kind="stable")
    sizes = np.unique(strata, return_counts=True)[1]
    turn = np.empty(len(strata), np.int64)
    turn[by_stratum] = np.arange(len(strata)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    noise = np.random.default_rng(np.random.SeedSequence([seed, 0x7A1])).permutation(len(strata))
    return np.lexsort((noise, turn))
