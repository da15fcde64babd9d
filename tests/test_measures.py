"""Draws, means over sets and deviations, written anew with NumPy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from train.evaluation.measures import Draws, average, deviation, metric_names, over_sets, reduce, samples_of

RNG = np.random.default_rng(1)
ID, NEAR, FAR = RNG.normal(size=100), RNG.normal(0.5, 1, 47), RNG.normal(2, 1, 15)


def test_rows_of_a_draw_are_distinct_and_a_function_of_the_seed():
    draws = Draws(5, 20, 3)
    rows = draws.rows(47)
    assert [len(set(drawn)) for drawn in rows] == [20] * 5
    assert all(drawn.min() >= 0 and drawn.max() < 47 for drawn in rows)
    assert len({tuple(drawn) for drawn in rows}) == 5
    assert all((a == b).all() for a, b in zip(rows, Draws(5, 20, 3).rows(47), strict=True))
    assert any((a != b).any() for a, b in zip(rows, Draws(5, 20, 4).rows(47), strict=True))
    # every image is drawn as often as any other: 2,000 draws of 20 of 47 hold each 851 times, give or take 22
    counts = np.bincount(np.concatenate(Draws(2000, 20, 0).rows(47)), minlength=47)
    assert np.abs(counts - 2000 * 20 / 47).max() < 5 * np.sqrt(2000 * 20 / 47 * 27 / 47)


def test_the_size_of_a_draw_is_a_fifth_of_the_id_images_unless_given():
    assert Draws(10).for_id_set(10_000) == Draws(10, 2000)
    assert Draws(10, 7).for_id_set(10_000) == Draws(10, 7)


def test_metrics_of_draws_by_hand():
    draws = Draws(4, 20, 0)
    got = samples_of(ID, NEAR, "ood-positive", 0.9, draws)
    for sample, rows in zip(got, draws.rows(47), strict=True):
        scores = np.r_[ID, NEAR[rows]]
        truth = np.r_[np.zeros(100), np.ones(20)]
        threshold = np.sort(NEAR[rows])[2]  # 18 of 20 are at least as large
        assert sample["fpr90"] == pytest.approx(np.mean(threshold <= ID))
        assert sample["auroc"] == pytest.approx(roc_auc_score(truth, scores))
        assert sample["aupr_in"] == pytest.approx(average_precision_score(1 - truth, -scores))
        assert sample["aupr_out"] == pytest.approx(average_precision_score(truth, scores))
    assert set(got[0]) == set(metric_names(0.9))


def test_without_draws_and_where_a_set_is_no_larger_there_is_one_sample_of_all_images():
    whole = samples_of(ID, FAR, "ood-positive", 0.95, None)
    assert whole == samples_of(ID, FAR, "ood-positive", 0.95, Draws(4, 20, 0))
    assert len(whole) == 1
    assert reduce({"energy": whole}) == ({"energy": whole[0]}, None)


def test_means_over_sets_are_taken_draw_by_draw():
    draws = Draws(4, 20, 0)
    near = samples_of(ID, NEAR, "paper", 0.95, draws)
    far = samples_of(ID, FAR, "paper", 0.95, draws)  # 15 images: whole
    both = over_sets([{"energy": near}, {"energy": far}], "energy")
    aurocs = [(sample["auroc"] + far[0]["auroc"]) / 2 for sample in near]
    assert [sample["auroc"] for sample in both] == pytest.approx(aurocs)
    means, deviations = reduce({"energy": both})
    assert means["energy"]["auroc"] == pytest.approx(sum(aurocs) / 4)
    assert deviations["energy"]["auroc"] == pytest.approx(np.sqrt(np.var(aurocs) * 4 / 3))


def test_average_and_sample_deviation():
    values = [{"a": 1.0}, {"a": 2.0}, {"a": 6.0}]
    assert average(values) == {"a": 3.0}
    assert deviation(values) == {"a": pytest.approx(np.sqrt(7))}
