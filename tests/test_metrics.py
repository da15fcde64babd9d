"""Metrics against brute force over every threshold, scikit-learn and pytorch-ood."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_ood.metrics import OODMetrics
from sklearn.metrics import roc_curve

from srood.errors import InputError
from srood.metrics import aupr_in, aupr_out, auroc, fpr_at_tpr, ood_metrics


def _samples(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    id_scores = rng.normal(0, 1, rng.integers(1, 60))
    ood_scores = rng.normal(1, 1, rng.integers(1, 60))
    return (id_scores.round(), ood_scores.round()) if ties else (id_scores, ood_scores)


CASES = [(seed, ties) for seed in range(25) for ties in (False, True)]


@pytest.mark.parametrize(("seed", "ties"), CASES)
def test_fpr_against_every_threshold(seed, ties):
    id_scores, ood_scores = _samples(seed, ties)
    everything = np.concatenate([id_scores, ood_scores])
    for tpr in (0.5, 0.8, 0.95, 1.0):
        flagging = [t for t in everything if np.mean(ood_scores >= t) >= tpr]
        assert fpr_at_tpr(id_scores, ood_scores, tpr) == np.mean(id_scores >= max(flagging))
        accepting = [t for t in everything if np.mean(id_scores <= t) >= tpr]
        assert fpr_at_tpr(id_scores, ood_scores, tpr, "id-positive") == np.mean(ood_scores <= min(accepting))


@pytest.mark.parametrize(("seed", "ties"), CASES)
def test_fpr_against_the_roc_curve_of_scikit_learn(seed, ties):
    id_scores, ood_scores = _samples(seed, ties)
    labels = np.r_[np.zeros(len(id_scores)), np.ones(len(ood_scores))]
    scores = np.r_[id_scores, ood_scores]
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert fpr_at_tpr(id_scores, ood_scores) == pytest.approx(fpr[np.argmax(tpr >= 0.95)], abs=1e-12)
    fpr, tpr, _ = roc_curve(1 - labels, -scores, drop_intermediate=False)
    got = fpr_at_tpr(id_scores, ood_scores, convention="id-positive")
    assert got == pytest.approx(fpr[np.argmax(tpr >= 0.95)], abs=1e-12)


@pytest.mark.parametrize(("seed", "ties"), CASES)
def test_areas_against_brute_force(seed, ties):
    id_scores, ood_scores = _samples(seed, ties)
    larger = (ood_scores[:, None] > id_scores).mean() + 0.5 * (ood_scores[:, None] == id_scores).mean()
    assert auroc(id_scores, ood_scores) == pytest.approx(larger, abs=1e-12)

    def average_precision(positives, negatives):  # sum over thresholds of (recall gained) * precision
        total, recall = 0.0, 0.0
        for t in sorted(set(positives) | set(negatives), reverse=True):
            hits, alarms = (positives >= t).sum(), (negatives >= t).sum()
            total += (hits / len(positives) - recall) * hits / (hits + alarms)
            recall = hits / len(positives)
        return total

    assert aupr_out(id_scores, ood_scores) == pytest.approx(average_precision(ood_scores, id_scores), abs=1e-12)
    assert aupr_in(id_scores, ood_scores) == pytest.approx(average_precision(-id_scores, -ood_scores), abs=1e-12)


def test_against_pytorch_ood():
    rng = np.random.default_rng(0)
    id_scores, ood_scores = rng.normal(0, 1, 10_000), rng.normal(1.5, 1.2, 1200)
    reference = OODMetrics()
    reference.update(
        torch.tensor(np.r_[id_scores, ood_scores]), torch.tensor(np.r_[np.zeros(10_000), -np.ones(1200)]).long()
    )
    expected, got = reference.compute(), ood_metrics(id_scores, ood_scores)
    assert got["fpr95"] == pytest.approx(expected["FPR95TPR"], abs=1e-9)
    assert got["auroc"] == pytest.approx(expected["AUROC"], abs=1e-9)
    # pytorch-ood interpolates between the points of the curve, the step-wise sum does not
    assert got["aupr_in"] == pytest.approx(expected["AUPR-IN"], abs=1e-3)
    assert got["aupr_out"] == pytest.approx(expected["AUPR-OUT"], abs=1e-3)


def test_the_conventions_by_hand():
    id_scores = np.arange(20.0)  # 0..19
    ood_scores = np.arange(20.0) + 10.5  # 10.5..29.5
    # 19 of 20 OOD images are >= 11.5, and so are the ID images 12..19
    assert fpr_at_tpr(id_scores, ood_scores) == 8 / 20
    # 19 of 20 ID images are <= 18, and so are the OOD images 10.5..17.5
    assert fpr_at_tpr(id_scores, ood_scores, convention="id-positive") == 8 / 20
    ood_scores[:10] = 100  # now the two differ
    assert fpr_at_tpr(id_scores, ood_scores) == 0.0
    assert fpr_at_tpr(id_scores[:10], np.r_[ood_scores, 0.0], convention="id-positive") == 1 / 21


def test_perfect_reversed_and_constant_scores():
    low, high = np.zeros(10), np.ones(10)
    for convention in ("ood-positive", "id-positive"):
        assert fpr_at_tpr(low, high, convention=convention) == 0.0
        assert fpr_at_tpr(high, low, convention=convention) == 1.0
        assert fpr_at_tpr(low, low, convention=convention) == 1.0  # ties are flagged together
    assert (auroc(low, high), auroc(high, low), auroc(low, low)) == (1.0, 0.0, 0.5)
    assert (aupr_in(low, low[:5]), aupr_out(low, low[:5])) == (pytest.approx(2 / 3), pytest.approx(1 / 3))


def test_bad_scores_are_refused():
    with pytest.raises(ValueError, match="ID scores hold 1 values that are not finite"):
        auroc([0.0, float("nan")], [1.0])
    with pytest.raises(ValueError, match="OOD scores have shape"):
        aupr_in([0.0], [])
    with pytest.raises(ValueError, match="tpr"):
        fpr_at_tpr([0.0], [1.0], tpr=95)
    with pytest.raises(InputError, match="ood-positive, id-positive"):
        fpr_at_tpr([0.0], [1.0], convention="in-positive")
