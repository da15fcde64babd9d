"""How many of the rows show an ID class: measured by corpus labels where they tell, estimated from ID-ness elsewhere.

The estimate takes the ID-ness of corpus rows as a mixture: a share of rows of ID classes, spread as held-out ID images
are but `shift` lower, as the corpus is another collection, and the rest, taken as normal. The shift cannot be known
without labels, so that it is bracketed. With no shift the share is least, and its lower end is what the upper tail
alone shows, whatever the rest is like; with the shift of the greatest likelihood it is most, as a shifted normal
easily passes for a skewed rest. The point is the geometric mean of the two; the interval runs from the lower end of
the one to the upper end of the other, with a margin for what the model gets wrong. docs/id-classes.md has figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import beta

EDGES = np.linspace(-8, 6, 141)
CENTRES = (EDGES[1:] + EDGES[:-1]) / 2
SHIFTS = np.arange(0, -16, -1)  # in bins, of a tenth of the standard deviation of held-out ID images
STEPS = 80  # of expectation-maximisation
RESAMPLES = 100
TAIL_RECALLS = np.arange(0.05, 0.925, 0.05)
LEAST_AUC = 0.65  # of held-out ID images against the corpus; below, ID-ness tells too little to estimate from
LEAST_ROWS = 50
CREDIBLE = 1.92  # log likelihood that a 95 % interval of one parameter allows (chi-squared, halved)
MARGIN = 1.25  # by which both ends give way: rows of ID classes are not just shifted, nor is the rest normal


@dataclass(frozen=True)
class Share:
    """A share of rows with its 95 % interval."""

    point: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Plain values for the manifest."""
        return {"point": round(self.point, 6), "low": round(self.low, 6), "high": round(self.high, 6)}


@dataclass(frozen=True)
class _Fits:
    """For each resample and shift the share of ID classes and the log likelihood, (B, shifts), and the probability of
    an ID class in each bin, (B, shifts, bins)."""

    share: np.ndarray
    posterior: np.ndarray
    likelihood: np.ndarray


def exact_interval(successes: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval (Biometrika 1934) of a share of `total` rows; (0, 1) of none."""
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, successes, total - successes + 1)) if successes else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, total - successes)) if successes < total else 1.0
    return low, high


def estimate(corpus: np.ndarray, held_out: np.ndarray, kept: np.ndarray, seed: int = 0) -> dict[str, Share] | None:
    """The share of rows that show an ID class, without labels.

    Args:
        corpus: (N,) ID-ness of the rows before the ID stage.
        held_out: (H,) ID-ness of held-out ID images.
        kept: (M,) ID-ness of the rows that were kept, some of those in `corpus`.

    Returns:
        "corpus" and "kept"; None where ID-ness hardly tells held-out ID images from the corpus, or rows are few.
    """
    if min(len(corpus), len(held_out)) < LEAST_ROWS or not len(kept) or separation(corpus, held_out) < LEAST_AUC:
        return None
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0xC0]))
    counts, held, rows = _counts(corpus), _counts(held_out), _counts(kept)
    counts, held = _resampled(counts, rng), _resampled(held, rng)  # the first is the sample itself
    fits = _mixture(counts, held, SHIFTS)
    least = min(
        exact_interval(int((corpus >= threshold).sum()), len(corpus))[0] / float((held_out >= threshold).mean())
        for threshold in np.quantile(held_out, 1 - TAIL_RECALLS)
    )
    density = _shifted(held, 0)[0] * counts[0].sum()
    tail = np.minimum(1, least * density / np.maximum(counts[0], 1))
    shares = rows / rows.sum()
    return {
        "corpus": _share(least, fits.share, fits.likelihood),
        "kept": _share(float(tail @ shares), fits.posterior @ shares, fits.likelihood),
    }


def separation(corpus: np.ndarray, held_out: np.ndarray) -> float:
    """Area under the ROC curve of ID-ness for telling held-out ID images from corpus rows; ties count half."""
    ordered = np.sort(corpus)
    below = np.searchsorted(ordered, held_out, "left") + np.searchsorted(ordered, held_out, "right")
    return float(below.mean() / 2 / len(corpus))


def describe(
    measured: Mapping[str, Any], counts: Mapping[str, tuple[int, int]], estimated: dict[str, Share] | None
) -> dict[str, Any]:
    """What the manifest says: `measured` by labels with intervals of its `counts` (showing ID, rows), and estimated."""
    intervals = {
        f"{name}_interval": [round(end, 6) for end in exact_interval(*counts[name])]
        if measured.get(name) is not None
        else None
        for name in ("corpus", "kept")
    }
    shares = {name: share.to_dict() for name, share in estimated.items()} if estimated else None
    return {**measured, **intervals, "estimated": shares}


def _share(least: float, of_fit: np.ndarray, likelihood: np.ndarray) -> Share:
    """Between the share with no shift and that with the likeliest; `of_fit` is (resamples, shifts), no shift first."""
    likeliest = of_fit[np.arange(len(of_fit)), likelihood.argmax(axis=1)]
    credible = of_fit[0, likelihood[0] >= likelihood[0].max() - CREDIBLE]
    point = float(np.sqrt(of_fit[0, 0] * likeliest[0]))
    low = min(least, float(np.quantile(of_fit[1:, 0], 0.025)), point)
    high = max(float(np.quantile(likeliest[1:], 0.975)), float(credible.max()), point)
    return Share(point, low / MARGIN, min(high * MARGIN, 1.0))


def _counts(values: np.ndarray) -> np.ndarray:
    return np.histogram(np.clip(values, EDGES[0], EDGES[-1]), EDGES)[0].astype(np.float64)


def _resampled(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    total = int(counts.sum())
    return np.concatenate([counts[None], rng.multinomial(total, counts / total, RESAMPLES).astype(np.float64)])


def _shifted(counts: np.ndarray, shift: int) -> np.ndarray:
    """Smoothed densities of (B, bins) counts, moved by `shift` bins."""
    kernel = np.exp(-0.5 * np.arange(-3, 4) ** 2)
    smooth = sum(
        weight * np.roll(counts, shift + step, axis=1) for step, weight in zip(range(-3, 4), kernel, strict=True)
    )
    smooth = np.asarray(smooth) + 1e-6 * counts.sum(axis=1, keepdims=True)
    return np.asarray(smooth / smooth.sum(axis=1, keepdims=True))


def _mixture(counts: np.ndarray, held: np.ndarray, shifts: np.ndarray) -> _Fits:
    """Expectation-maximisation, for every resample and shift at once."""
    show = np.stack([_shifted(held, int(shift)) for shift in shifts], axis=1)  # (B, shifts, bins)
    rows = counts[:, None, :]
    total = counts.sum(axis=1)[:, None]
    mean = np.repeat((counts @ CENTRES)[:, None] / total, len(shifts), axis=1)
    deviation = np.sqrt(np.maximum((counts @ CENTRES**2)[:, None] / total - mean**2, 1e-4))
    mean, share = mean - deviation / 2, np.full_like(mean, 0.3)  # the rest lies low
    for _ in range(STEPS):
        rest = np.exp(-0.5 * ((CENTRES - mean[..., None]) / deviation[..., None]) ** 2) + 1e-12
        rest /= rest.sum(axis=2, keepdims=True)
        both = share[..., None] * show + (1 - share[..., None]) * rest
        posterior = share[..., None] * show / both
        share = (rows * posterior).sum(axis=2) / total
        others = rows * (1 - posterior)
        left = np.maximum(others.sum(axis=2), 1e-9)
        mean = (others @ CENTRES) / left
        deviation = np.sqrt(np.maximum((others @ CENTRES**2) / left - mean**2, 1e-4))
    return _Fits(share, posterior, (rows * np.log(both)).sum(axis=2))
