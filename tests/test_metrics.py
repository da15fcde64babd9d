"""Metrics against brute force over every threshold, scikit-learn and pytorch-ood."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_ood.metrics import OODMetrics
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from srood.errors import InputError
from srood.metrics import (
    CONVENTIONS,
    aupr_in,
    aupr_out,
    auroc,
    describe_convention,
    detection_error,
    fpr_at_tpr,
    fpr_name,
    ood_metrics,
)


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


def _authors_fpr(id_scores, ood_scores, recall_level):
    """What the authors' code does, in plain Python: points of the curve from the lowest threshold that is needed on."""
    confidence_id, confidence_ood = -id_scores, -ood_scores
    points = []  # (recall, false positives), with falling thresholds, up to the first with full recall
    for threshold in sorted({*confidence_id, *confidence_ood}, reverse=True):
        recall = sum(c >= threshold for c in confidence_id) / len(confidence_id)
        points.append((recall, sum(c >= threshold for c in confidence_ood)))
        if recall == 1:
            break
    points = [*reversed(points), (1.0, 0)]  # the code adds this point, which can never be the first of the nearest
    nearest = min(range(len(points)), key=lambda i: abs(points[i][0] - recall_level))  # the first, as argmin gives
    return points[nearest][1] / len(ood_scores)


@pytest.mark.parametrize(("seed", "ties"), CASES)
def test_paper_convention_against_a_plain_rewriting_of_the_authors_code(seed, ties):
    id_scores, ood_scores = _samples(seed, ties)
    for tpr in (0.05, 0.5, 0.8, 0.9, 0.95, 0.975, 1.0):
        expected = _authors_fpr(id_scores, ood_scores, tpr)
        assert fpr_at_tpr(id_scores, ood_scores, tpr, "paper") == expected
        assert ood_metrics(id_scores, ood_scores, "paper", tpr)[fpr_name(tpr)] == expected


def test_paper_convention_takes_the_nearest_recall_and_there_the_lowest_confidence():
    id_scores = np.arange(8.0)  # recalls are eighths: 7/8 is nearer to 0.93 than 1 is; id-positive takes 1
    ood_scores = np.array([0.5, 6.2, 6.4, 6.6, 7.5])
    assert fpr_at_tpr(id_scores, ood_scores, 0.93, "paper") == 4 / 5  # at 6.6, not at 6, where it would be 1 / 5
    assert fpr_at_tpr(id_scores, ood_scores, 0.87, "id-positive") == 1 / 5  # the first threshold is at 6
    assert fpr_at_tpr(id_scores, ood_scores, 0.93, "id-positive") == 4 / 5  # at 7
    assert fpr_at_tpr(id_scores, ood_scores, 0.99, "paper") == 4 / 5  # with full recall the first threshold, 7, again


@pytest.mark.parametrize(("seed", "ties"), CASES)
def test_detection_error_against_every_threshold(seed, ties):
    id_scores, ood_scores = _samples(seed, ties)
    thresholds = [*id_scores, *ood_scores, np.inf]  # inf flags nothing
    errors = [0.5 * np.mean(ood_scores < t) + 0.5 * np.mean(id_scores >= t) for t in thresholds]
    assert detection_error(id_scores, ood_scores) == pytest.approx(min(errors), abs=1e-12)
    assert detection_error(id_scores, ood_scores) <= 0.5


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


@pytest.mark.parametrize("digits", [1, 9])  # with and without ties
def test_against_scikit_learn_on_sets_as_large_as_real_ones(digits):
    rng = np.random.default_rng(1)
    id_scores, ood_scores = rng.normal(0, 1, 10_000).round(digits), rng.normal(1.5, 1.2, 36_000).round(digits)
    is_ood, scores = np.r_[np.zeros(10_000), np.ones(36_000)], np.r_[id_scores, ood_scores]
    fpr, tpr, _ = roc_curve(is_ood, scores, drop_intermediate=False)
    got = ood_metrics(id_scores, ood_scores, tpr=0.9)
    assert got == pytest.approx(
        {
            "fpr90": fpr[np.argmax(tpr >= 0.9)],
            "auroc": roc_auc_score(is_ood, scores),
            "aupr_in": average_precision_score(1 - is_ood, -scores),
            "aupr_out": average_precision_score(is_ood, scores),
            "detection_error": (0.5 * (1 - tpr) + 0.5 * fpr).min(),
        },
        abs=1e-12,
    )


def test_one_call_gives_what_the_functions_give():
    id_scores, ood_scores = _samples(3, ties=True)
    for convention in CONVENTIONS:
        assert ood_metrics(id_scores, ood_scores, convention, 0.8) == {
            "fpr80": fpr_at_tpr(id_scores, ood_scores, 0.8, convention),
            "auroc": auroc(id_scores, ood_scores),
            "aupr_in": aupr_in(id_scores, ood_scores),
            "aupr_out": aupr_out(id_scores, ood_scores),
            "detection_error": detection_error(id_scores, ood_scores),
        }


def test_names_and_definitions_state_the_tpr():
    assert [fpr_name(tpr) for tpr in (0.95, 0.9, 0.57, 0.999)] == ["fpr95", "fpr90", "fpr57", "fpr99.9"]
    assert "at least 90 % of the OOD images" in describe_convention("ood-positive", 0.9)
    assert "at least 95 % of the ID images" in describe_convention("id-positive")
    assert "nearest to 99.5 % (the authors' code)" in describe_convention("paper", 0.995)
    with pytest.raises(InputError, match="'papers' is unknown; choose one of ood-positive, id-positive, paper"):
        describe_convention("papers")


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
    for convention in CONVENTIONS:
        assert fpr_at_tpr(low, high, convention=convention) == 0.0
        assert fpr_at_tpr(high, low, convention=convention) == 1.0
        assert fpr_at_tpr(low, low, convention=convention) == 1.0  # ties are flagged together
    assert (auroc(low, high), auroc(high, low), auroc(low, low)) == (1.0, 0.0, 0.5)
    assert [detection_error(*pair) for pair in ((low, high), (high, low), (low, low))] == [0.0, 0.5, 0.5]
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
