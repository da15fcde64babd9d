"""Post-hoc scores: which there are, their sign, what a fit needs, and how it fails."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import pytorch_ood.detector as library
import torch
from feature_case import C, Case, D
from scipy.special import logsumexp, softmax
from sklearn.metrics import log_loss, roc_auc_score
from torch import nn

from srood.errors import InputError
from srood.posterior_scores import fit_temperature
from srood.posthoc import POSTHOC, choose, fit, needs_id_images
from srood.scores import ODIN, SCORES


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def test_every_detector_of_pytorch_ood_is_here_or_cannot_be():
    """POSTHOC's docstring says why: they need maps of layers, dropout, texts, gradients or weights of a training."""
    ours = {"ASH": "ash-s", "MaxSoftmax": "msp", "EnergyBased": "energy", "MaxLogit": "max-logit"}
    ours |= {"TemperatureScaling": "temperature-scaling", "KLMatching": "kl-matching"}
    elsewhere = {"Gram", "GradUncertainty", "MCD", "MCM", "MahalanobisODIN", "MultiMahalanobis", "NACUE", "RankFeat"}
    elsewhere |= {"WeightedEBO", "odin_preprocessing"}
    every = choose(["all"])
    for name in set(library.__all__) - elsewhere:
        assert ours.get(name, name.lower()) in every, name


def test_temperature_is_where_the_loss_is_least(case):
    best = fit_temperature(torch.from_numpy(case.z), torch.from_numpy(case.y))
    losses = [log_loss(case.y, softmax(case.z / t, axis=1)) for t in (0.99 * best, best, 1.01 * best)]
    assert losses[1] < min(losses[0], losses[2])
    assert fit_temperature(torch.from_numpy(3 * case.z), torch.from_numpy(case.y)) == pytest.approx(3 * best, rel=1e-5)


@pytest.mark.parametrize("name", POSTHOC)
def test_larger_is_more_ood_and_the_fit_is_repeatable(case, name):
    scores = case.score(name, case.some)
    assert scores.dtype == np.float64 and scores.shape == (80,)
    assert roc_auc_score(np.arange(80) >= 40, scores) > 0.8
    assert scores[:40].mean() < scores[40:].mean()
    np.testing.assert_array_equal(case.score(name, case.some), scores)


@pytest.mark.parametrize("name", POSTHOC)
def test_an_image_has_the_same_score_in_any_company(case, name, monkeypatch):
    whole = case.score(name, case.some)
    monkeypatch.setattr("srood.posthoc.CHUNK", 7)
    np.testing.assert_allclose(case.score(name, case.some), whole, rtol=1e-9)


@pytest.mark.parametrize("name", [name for name, entry in POSTHOC.items() if not entry.fitted])
def test_scores_without_a_fit_need_no_id_images(case, name):
    x, z = torch.from_numpy(case.some), torch.from_numpy(case.logits(case.some))
    np.testing.assert_array_equal(fit(name, case.head)(z, x).numpy(), case.score(name, case.some))


def test_which_scores_need_id_images():
    assert needs_id_images(["energy", "odin", "knn"]) and not needs_id_images(["energy", "odin", "ash-s", "gen"])
    with pytest.raises(InputError, match="score knn: needs logits, features and labels of ID training images"):
        fit("knn", nn.Linear(D, C))
    with pytest.raises(InputError, match="score rmd: needs logits, features and labels of ID training images"):
        fit("rmd", nn.Linear(D, C), torch.empty(0, C), torch.empty(0, D), torch.empty(0, dtype=torch.int64))


def test_images_without_active_features_have_a_score(case):
    for name in POSTHOC:
        assert np.isfinite(case.score(name, np.zeros((2, D)))).all(), name
    none = -logsumexp(case.b.astype(float))  # the logits are the biases
    for name in ("ash-p", "ash-b", "ash-s", "scale", "lts"):
        np.testing.assert_allclose(case.score(name, np.zeros((1, D))), none, rtol=1e-6)


def test_confident_images_do_not_tie(case):
    logits = torch.tensor([[20.0, 0.0], [25.0, 0.0], [60.0, 0.0]])
    head = nn.Linear(D, 2)
    for name in ("gen", "entropy"):
        first, second, third = fit(name, head)(logits, torch.zeros(3, D)).tolist()
        assert first > second > third > 0, name
    assert library.GEN.score(logits)[0] == library.GEN.score(logits)[2]  # which it is not taken from for this reason


def test_all_scores_by_name():
    assert choose([]) == choose(["default"]) == list(SCORES) == ["energy", "msp", "max-logit", "sparsity"]
    assert choose(["all"]) == [*SCORES, ODIN, *POSTHOC]
    assert choose(["knn,energy", " vim", "knn"]) == ["knn", "energy", "vim"]
    assert choose(["odin", "default"]) == ["odin", *SCORES]
    with pytest.raises(InputError, match="--score mahalanobs: is unknown; did you mean mahalanobis"):
        choose(["energy,mahalanobs"])
    with pytest.raises(InputError, match="--score zzz: is unknown; choose from energy, msp"):
        choose(["zzz"])


def test_few_images_a_class(case):
    few = np.concatenate([np.flatnonzero((case.y == k) & (case.z.argmax(1) == k))[:3] for k in range(C)])
    z, f, y = (torch.from_numpy(a[few]) for a in (case.z, case.f, case.y))
    x, logits = torch.from_numpy(case.some), torch.from_numpy(case.logits(case.some))
    for name in set(POSTHOC) - {"knn"}:
        assert fit(name, case.head, z, f, y)(logits, x).isfinite().all(), name
    with pytest.raises(InputError, match="score knn: cannot be fitted to these 12 ID images: it needs 50 or more"):
        fit("knn", case.head, z, f, y)


def test_what_cannot_be_fitted_is_named(case):
    z, f, y = torch.from_numpy(case.z), torch.from_numpy(case.f), torch.from_numpy(case.y)
    with pytest.raises(InputError, match="score she: cannot be fitted .* has none of class 2"):
        fit("she", case.head, z[y != 2], f[y != 2], y[y != 2])
    with pytest.raises(InputError, match="score openmax: cannot be fitted .* none of them is classified rightly"):
        fit("openmax", case.head, z, f, (z.argmax(1) + 1) % C)
    with pytest.raises(InputError, match="score vim: cannot be fitted .* no part outside their 8 principal dimensions"):
        flat = f * (torch.arange(D) < D // 2)
        fit("vim", nn.Linear(D, C, bias=False), z, flat, y)
    with pytest.raises(InputError, match="score gmm: logits or features of ID images are not finite"):
        fit("gmm", case.head, z, torch.where(f > 1.9, torch.inf, f), y)
    with pytest.raises(InputError, match="score mahalanobis: cannot be fitted to these 300 ID images"):
        fit("mahalanobis", case.head, z, 1e9 * f[:, [0] * D], y)  # no ridge makes this scatter invertible
    with pytest.raises(InputError, match="score 'mahalanobi' is unknown"):
        fit("mahalanobi", case.head)
    with pytest.raises(ValueError, match="do not fit together"):
        fit("knn", case.head, z, f[:, :-1], y)
    with pytest.raises(ValueError, match="labels lie in"):
        fit("knn", case.head, z, f, y + 1)


def test_scores_that_are_not_finite_are_refused(case):
    score = case.fit("react")
    logits, features = torch.zeros(3, C), torch.zeros(3, D)
    features[1, 0] = torch.nan
    with pytest.raises(InputError, match="score react: is not finite for 1 of 3 images"):
        score(logits, features)


def test_a_last_layer_without_bias_and_half_precision_inputs(case):
    bare, zero = nn.Linear(D, C, bias=False), nn.Linear(D, C)
    bare.weight.data, zero.weight.data = case.head.weight.data, case.head.weight.data
    zero.bias.data = torch.zeros(C)
    f, y = torch.from_numpy(case.f).bfloat16(), torch.from_numpy(case.y)
    z = zero(f.float()).detach()
    for name in ("vim", "dice", "react"):
        got, expected = (fit(name, head, z, f, y)(z[:9], f[:9]) for head in (bare, zero))
        assert got.dtype == torch.float64
        np.testing.assert_array_equal(got, expected)


def test_the_docs_list_every_score_and_which_are_fitted():
    page = (Path(__file__).parent.parent / "docs" / "scores.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \|.*\| (yes|) ?\| [^|]+ \|$", page, flags=re.M)
    assert [name for name, _ in rows] == choose(["all"])
    assert [name for name, fitted in rows if fitted] == [name for name, entry in POSTHOC.items() if entry.fitted]
