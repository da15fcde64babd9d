"""Accuracy, ECE and AURC of ID images against loops, every order of ties, and scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from srood.id_metrics import accuracy, aurc, eaurc, ece


def _logits(seed: int, count: int = 400, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=count)
    return rng.normal(0, 1.5, (count, classes)) + 2 * np.eye(classes)[labels], labels


def test_accuracy_against_scikit_learn():
    logits, labels = _logits(0)
    assert accuracy(logits, labels) == accuracy_score(labels, logits.argmax(1)) != 1


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_ece_against_a_loop_over_bins(bins):
    logits, labels = _logits(1)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = 0.0
    for b in range(bins):
        inside = (p.max(1) > b / bins) & (p.max(1) <= (b + 1) / bins)
        if inside.any():
            gap = np.mean(p.argmax(1)[inside] == labels[inside]) - p.max(1)[inside].mean()
            expected += inside.mean() * abs(gap)
    assert ece(logits, labels, bins) == pytest.approx(expected, abs=1e-12)
    assert expected > 0.01


def test_ece_by_hand():
    # confidences 0.45, 0.45, 0.75, 0.75 in the bins (0.4, 0.5] and (0.7, 0.8], of each pair one right
    logits = np.log([[0.45, 0.30, 0.25], [0.45, 0.25, 0.30], [0.75, 0.15, 0.10], [0.75, 0.10, 0.15]])
    assert ece(logits, [0, 1, 0, 1], bins=10) == pytest.approx(0.5 * 0.05 + 0.5 * 0.25, abs=1e-12)
    assert ece(1000 * np.eye(3), [0, 1, 2]) == 0.0  # large logits do not overflow, and confidence 1 has a bin


def test_a_bin_holds_its_upper_edge():
    # confidences 0.5 and 0.6 are in (0, 0.5] and (0.5, 1]; in one bin the gap would be |1 / 2 - 0.55|
    logits = np.array([[0.0, 0.0], [np.log(1.5), 0.0]])
    assert ece(logits, [0, 1], bins=2) == pytest.approx(0.5 * 0.5 + 0.5 * 0.6, abs=1e-12)


def _aurc(correct_in_order: tuple[bool, ...]) -> float:
    wrong, risks = 0, []
    for covered, right in enumerate(correct_in_order, start=1):
        wrong += not right
        risks.append(wrong / covered)
    return sum(risks) / len(risks)


@pytest.mark.parametrize("seed", range(10))
def test_aurc_is_the_mean_over_every_order_that_the_scores_allow(seed):
    rng = np.random.default_rng(seed)
    scores, correct = rng.integers(0, 4, 7).astype(float), rng.random(7) < 0.6
    orders = [o for o in itertools.permutations(range(7)) if np.all(np.diff(scores[list(o)]) >= 0)]
    expected = np.mean([_aurc(tuple(correct[list(o)])) for o in orders])
    assert aurc(scores, correct) == pytest.approx(expected, abs=1e-12)
    best = min(_aurc(o) for o in set(itertools.permutations(correct.tolist())))
    assert eaurc(scores, correct) == pytest.approx(expected - best, abs=1e-12)


def test_aurc_without_ties_against_a_loop():
    logits, labels = _logits(2)
    scores, correct = -logits.max(1), logits.argmax(1) == labels
    assert aurc(scores, correct) == pytest.approx(_aurc(tuple(correct[np.argsort(scores)])), abs=1e-12)
    shuffled = np.random.default_rng(0).permutation(len(scores))
    assert aurc(scores[shuffled], correct[shuffled]) == pytest.approx(aurc(scores, correct), abs=1e-12)


def test_aurc_of_the_best_the_worst_and_no_order():
    correct = [True, True, False, False]
    assert aurc([1, 2, 3, 4], correct) == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)
    assert aurc([4, 3, 2, 1], correct) == pytest.approx((1 + 1 + 2 / 3 + 2 / 4) / 4)
    assert aurc([0, 0, 0, 0], correct) == pytest.approx(0.5)
    assert eaurc([1, 2, 3, 4], correct) == 0.0


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match=r"logits of shape \(3, 2\) and labels of shape \(2,\)"):
        ece(np.zeros((3, 2)), [0, 1])
    with pytest.raises(ValueError, match="bins is 0"):
        ece(np.zeros((2, 2)), [0, 1], bins=0)
    with pytest.raises(ValueError, match=r"scores of shape \(2,\) and correct of shape \(3,\)"):
        aurc([0.0, 1.0], [True, False, True])
    with pytest.raises(ValueError, match="1 values that are not finite"):
        aurc([0.0, float("nan")], [True, False])
