"""From scores to the figures of an evaluation: metrics, draws, means over sets and groups, deviations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from srood.metrics import fpr_name, ood_metrics

Metrics = dict[str, float]  # by metric, shares in [0, 1]
ByScore = dict[str, Metrics]  # by score


def metric_names(tpr: float) -> tuple[str, ...]:
    """The metrics of a score on an OOD set, in the order of tables."""
    return (fpr_name(tpr), "auroc", "aupr_in", "aupr_out", "detection_error")


@dataclass(frozen=True)
class Draws:
    """Random subsets of an OOD set: `number` of them, `size` images each, a function of `seed`.

    `size` 0 is a fifth of the ID test images, as in the paper, to be resolved by `for_id_set`.
    """

    number: int
    size: int = 0
    seed: int = 0

    def for_id_set(self, id_images: int) -> Draws:
        """The same draws with their size, given the number of ID test images."""
        return replace(self, size=self.size or max(1, id_images // 5))

    def rows(self, count: int) -> list[np.ndarray]:
        """Row numbers of each draw from a set of `count` images, ascending, without replacement within a draw.

        A set with no more images than a draw takes is taken whole, once: there is nothing to draw. Sets of the same
        size get the same rows, whatever the classifier: so two classifiers are compared on the same images.
        """
        if count <= self.size:
            return [np.arange(count)]
        return [
            np.sort(np.random.default_rng([self.seed, number]).choice(count, self.size, replace=False))
            for number in range(self.number)
        ]


def samples_of(
    id_scores: np.ndarray, ood_scores: np.ndarray, convention: str, tpr: float, draws: Draws | None
) -> list[Metrics]:
    """The metrics of one score on one OOD set: once over all its images, or once a draw.

    Args:
        id_scores, ood_scores: (N,), (M,), larger = more OOD
    """
    rows = draws.rows(len(ood_scores)) if draws else [np.arange(len(ood_scores))]
    return [ood_metrics(id_scores, ood_scores[drawn], convention, tpr) for drawn in rows]


def average(values: Sequence[Mapping[str, float]]) -> Metrics:
    """The plain mean of each metric."""
    return {name: float(np.mean([value[name] for value in values])) for name in values[0]}


def deviation(values: Sequence[Mapping[str, float]]) -> Metrics:
    """The sample standard deviation (n - 1) of each metric."""
    return {name: float(np.std([value[name] for value in values], ddof=1)) for name in values[0]}


def over_sets(sets: Sequence[Mapping[str, list[Metrics]]], score: str) -> list[Metrics]:
    """Means over OOD sets of one score, draw by draw; `sets` hold the samples of each score.

    A set that was taken whole has one sample, which stands beside each draw of the others.
    """
    number = max(len(samples[score]) for samples in sets)
    columns = [samples[score] * (number if len(samples[score]) == 1 else 1) for samples in sets]
    return [average(draw) for draw in zip(*columns, strict=True)]


def reduce(samples: Mapping[str, list[Metrics]]) -> tuple[ByScore, ByScore | None]:
    """Samples of each score to their means, and to their deviations where there are several."""
    means = {score: average(values) for score, values in samples.items()}
    if any(len(values) == 1 for values in samples.values()):
        return means, None
    return means, {score: deviation(values) for score, values in samples.items()}
