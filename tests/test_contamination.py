import json
from math import comb

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from curate import contamination
from curate.contamination import Share, estimate, exact_interval


@pytest.mark.parametrize(("successes", "total"), [(0, 20), (3, 20), (10, 40), (20, 20)])
def test_exact_interval_solves_the_binomial_tails(successes, total):
    at_least = lambda p, k: sum(comb(total, i) * p**i * (1 - p) ** (total - i) for i in range(k, total + 1))  # noqa: E731
    low, high = exact_interval(successes, total)
    assert low == 0 if successes == 0 else at_least(low, successes) == pytest.approx(0.025, abs=1e-9)
    assert high == 1 if successes == total else 1 - at_least(high, successes + 1) == pytest.approx(0.025, abs=1e-9)


def test_interval_of_no_rows():
    assert exact_interval(0, 0) == (0, 1)


def test_separation_is_the_area_under_the_roc_curve():
    rng = np.random.default_rng(0)
    corpus, held_out = rng.normal(size=300).round(1), rng.normal(1, 1, 200).round(1)  # with ties
    expected = roc_auc_score(np.repeat([0, 1], [300, 200]), np.concatenate([corpus, held_out]))
    assert contamination.separation(corpus, held_out) == pytest.approx(expected, abs=1e-12)


def mixture(share: float, seed: int, rows: int = 5_000, shift: float = 0.0, rest: tuple[float, float] = (-2.5, 0.9)):
    """ID-ness of corpus rows with the truth, of held-out images, and which rows a filter at recall 0.6 leaves."""
    rng = np.random.default_rng(seed)
    shows = rng.random(rows) < share
    corpus = np.where(shows, rng.normal(shift, 1, rows), rng.normal(*rest, rows))
    held_out = rng.normal(0, 1, 3_000)
    return corpus, shows, held_out, corpus < np.quantile(held_out, 0.4)


@pytest.mark.parametrize("share", [0, 0.02, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_interval_holds_the_truth(share, seed):
    corpus, shows, held_out, kept = mixture(share, seed)
    found = estimate(corpus, held_out, corpus[kept])
    for name, truth in (("corpus", shows.mean()), ("kept", shows[kept].mean())):
        assert found[name].low <= truth <= found[name].high
        assert found[name].point == pytest.approx(truth, abs=0.04)
    assert found["corpus"].high - found["corpus"].low < 0.2 + 0.6 * share


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_so_it_does_where_the_corpus_shows_id_classes_otherwise(share):
    """Rows of ID classes are less ID-like than held-out images, and the rest is skewed towards them."""
    corpus, shows, held_out, _ = mixture(share, seed=2, shift=-0.7)
    rng = np.random.default_rng(3)
    corpus[~shows] = -3 + rng.gamma(3, 0.4, (~shows).sum())
    kept = corpus < -0.25
    found = estimate(corpus, held_out, corpus[kept])
    assert found["corpus"].low <= shows.mean() <= found["corpus"].high
    assert found["kept"].low <= shows[kept].mean() <= found["kept"].high


def test_the_filter_off_and_a_band():
    corpus, shows, held_out, _ = mixture(0.2, seed=4)
    everything = estimate(corpus, held_out, corpus)
    assert everything["kept"].point == pytest.approx(everything["corpus"].point, abs=0.005)
    band = (corpus > -2) & (corpus < 0)
    found = estimate(corpus, held_out, corpus[band])["kept"]
    assert found.low <= shows[band].mean() <= found.high


def test_same_rows_and_seed_give_the_same_estimate_in_any_order():
    corpus, _, held_out, kept = mixture(0.1, seed=5)
    first = estimate(corpus, held_out, corpus[kept], seed=1)
    again = np.random.default_rng(0).permutation(corpus)
    assert estimate(again, held_out, corpus[kept][::-1], seed=1) == first
    assert estimate(corpus, held_out, corpus[kept], seed=2) != first


def test_nothing_is_estimated_where_id_ness_does_not_tell():
    rng = np.random.default_rng(6)
    corpus, held_out = rng.normal(size=1_000), rng.normal(0.3, 1, 1_000)
    assert estimate(corpus, held_out, corpus) is None
    assert estimate(corpus - 5, held_out, corpus[:0]) is None
    assert estimate(corpus[:20] - 5, held_out, corpus[:20] - 5) is None


def test_what_the_manifest_says():
    measured = {"measured_by": "labels", "corpus": 0.25, "kept": 0.0, "labelled_rows_kept": 100}
    found = contamination.describe(measured, {"corpus": (50, 200), "kept": (0, 100)}, {"kept": Share(0.01, 0, 0.1)})
    assert found["kept_interval"] == [0, pytest.approx(1 - 0.025 ** (1 / 100), abs=1e-6)]  # the rule of three, exactly
    low, high = found["corpus_interval"]
    assert low < 0.25 < high and high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 * 0.75 / 200), rel=0.1)
    assert found["estimated"] == {"kept": {"point": 0.01, "low": 0, "high": 0.1}}
    json.dumps(found, allow_nan=False)
    unknown = {"measured_by": None, "corpus": None, "kept": None, "labelled_rows_kept": 0}
    found = contamination.describe(unknown, {"corpus": (0, 0), "kept": (0, 0)}, None)
    assert found["kept_interval"] is None and found["corpus_interval"] is None and found["estimated"] is None
