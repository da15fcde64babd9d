"""The losses against closed forms, finite differences and hand-written NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from srood.losses import ce_loss, outlier_exposure, sparsity, sr_loss, sroe_loss


def test_sparsity_is_a_sum_over_features_and_a_mean_over_images():
    features = torch.tensor([[1.0, 0.0, 2.0], [0.0, -4.0, 0.5]])
    assert sparsity(features).item() == (3.0 + 4.5) / 2


def test_outlier_exposure_of_equal_logits_is_log_c():
    assert outlier_exposure(torch.full((5, 7), 3.0)).item() == pytest.approx(math.log(7), rel=1e-6)


def test_outlier_exposure_of_two_classes_in_closed_form():
    # logits (a, 0): logsumexp = log(1 + e^a), mean = a / 2
    expected = np.mean([math.log1p(math.exp(a)) - a / 2 for a in (2.0, -3.0)])
    assert outlier_exposure(torch.tensor([[2.0, 0.0], [-3.0, 0.0]])).item() == pytest.approx(expected, rel=1e-6)


def test_outlier_exposure_is_the_kl_divergence_from_uniform_up_to_log_c():
    logits = torch.randn(11, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4
    log_p = torch.log_softmax(logits, 1)
    kl = torch.nn.functional.kl_div(log_p, torch.full_like(log_p, 1 / 6), reduction="batchmean")
    assert outlier_exposure(logits).item() == pytest.approx(kl.item() + math.log(6), rel=1e-12)


def _numpy_sroe(logits, features, labels, alpha, beta):
    n = len(labels)
    lse = np.log(np.exp(logits).sum(1))
    ce = np.mean(lse[:n] - logits[np.arange(n), labels])
    l1 = np.mean(np.abs(features[:n]).sum(1))
    oe = np.mean(lse[n:] - logits[n:].mean(1))
    return ce + alpha * l1 + beta * oe, ce, l1, oe


def test_sroe_and_its_parts_against_numpy():
    rng = np.random.default_rng(1)
    logits, features, labels = rng.normal(size=(9, 4)), rng.normal(size=(9, 6)), np.array([0, 3, 1])
    loss = sroe_loss(torch.tensor(logits), torch.tensor(features), torch.tensor(labels), alpha=0.3, beta=0.7)
    for got, expected in zip(
        (loss.total, *loss.terms.values()), _numpy_sroe(logits, features, labels, 0.3, 0.7), strict=True
    ):
        assert got.item() == pytest.approx(expected, rel=1e-12)


def test_the_default_weights_are_the_papers():
    rng = np.random.default_rng(2)
    logits, features, labels = rng.normal(size=(5, 3)), rng.normal(size=(5, 4)), np.array([2, 0])
    args = torch.tensor(logits), torch.tensor(features), torch.tensor(labels)
    assert sroe_loss(*args).total.item() == pytest.approx(
        _numpy_sroe(logits, features, labels, 0.02, 0.5)[0], rel=1e-12
    )
    ce, l1 = _numpy_sroe(logits, features, labels, 0, 0)[1:3]
    assert sr_loss(args[0][:2], args[1][:2], args[2]).total.item() == pytest.approx(ce + 0.02 * l1, rel=1e-12)
    assert ce_loss(args[0][:2], args[1][:2], args[2]).total.item() == pytest.approx(ce, rel=1e-12)


def _case(seed=3):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    features = torch.randn(6, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    return logits, features, torch.tensor([1, 0])


def test_gradients_against_finite_differences():
    logits, features, labels = _case()
    loss = sroe_loss(logits, features, labels, alpha=0.3, beta=0.7).total
    loss.backward()
    step = 1e-6
    for tensor in (logits, features):
        assert tensor.grad is not None
        values, analytic = tensor.detach(), tensor.grad.flatten()
        for i in range(values.numel()):
            ends = []
            for sign in (1, -1):
                moved = values.clone()
                moved.view(-1)[i] += sign * step
                pair = (moved, features.detach()) if tensor is logits else (logits.detach(), moved)
                ends.append(sroe_loss(*pair, labels, alpha=0.3, beta=0.7).total.item())
            assert analytic[i].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)


def test_the_sparsity_term_touches_id_features_only():
    logits, features, labels = _case()
    sroe_loss(logits, features, labels, alpha=0.3).total.backward()
    assert features.grad is not None
    assert torch.equal(features.grad[2:], torch.zeros(4, 5, dtype=torch.float64))
    # d/dF of mean over 2 ID images of sum |F| is sign(F) / 2
    assert torch.allclose(features.grad[:2], 0.3 * features.detach()[:2].sign() / 2)


def test_outlier_sparsity_changes_the_sparsity_term_and_nothing_else():
    logits, features, labels = _case()
    paper = sroe_loss(logits, features, labels, alpha=0.3)
    code = sroe_loss(logits, features, labels, alpha=0.3, outlier_sparsity=True)
    size = features.detach().abs().sum(1)
    assert paper.terms["sparsity"].item() == pytest.approx(size[:2].mean().item(), rel=1e-12)
    assert code.terms["sparsity"].item() == pytest.approx(size.mean().item(), rel=1e-12)
    for name in ("cross_entropy", "outlier_exposure"):
        assert torch.equal(paper.terms[name], code.terms[name])
    change = 0.3 * (size.mean() - size[:2].mean())
    assert (code.total - paper.total).item() == pytest.approx(change.item(), rel=1e-9)
    of_logits, of_features = torch.autograd.grad(code.total, (logits, features))
    assert torch.equal(of_logits, torch.autograd.grad(paper.total, logits)[0])
    # d/dF of mean over 2 ID images and 4 outliers of sum |F| is sign(F) / 6
    assert torch.allclose(of_features, 0.3 * features.detach().sign() / 6)


def test_the_outlier_gradient_is_softmax_minus_uniform():
    logits, features, labels = _case()
    sroe_loss(logits, features, labels, beta=0.5).total.backward()
    assert logits.grad is not None
    expected = 0.5 * (logits.detach()[2:].softmax(1) - 1 / 4) / 4
    assert torch.allclose(logits.grad[2:], expected)


def test_pretraining_watches_sparsity_without_learning_from_it():
    logits, features, labels = _case()
    loss = ce_loss(logits[:2], features[:2], labels)
    loss.total.backward()
    assert features.grad is None
    assert loss.terms["sparsity"].item() == pytest.approx(features.detach()[:2].abs().sum(1).mean().item())


def test_half_precision_inputs_are_summed_in_float32():
    features = torch.full((2, 4096), 0.01, dtype=torch.bfloat16)
    exact = float(torch.tensor(0.01, dtype=torch.bfloat16)) * 4096
    assert sparsity(features).dtype == torch.float32
    assert sparsity(features).item() == pytest.approx(exact, rel=1e-6)
    logits = torch.randn(8, 10, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert outlier_exposure(logits).item() == pytest.approx(outlier_exposure(logits.double()).item(), rel=1e-6)


def test_sroe_without_outliers_is_refused():
    with pytest.raises(ValueError, match="no outliers"):
        sroe_loss(torch.zeros(2, 3), torch.zeros(2, 4), torch.tensor([0, 1]))
