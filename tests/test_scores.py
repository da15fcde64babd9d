"""Scores against NumPy and pytorch-ood."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_ood.detector import EnergyBased, MaxLogit, MaxSoftmax

from srood.scores import SCORES, energy, max_logit, msp, sparsity


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5


def test_scores_against_numpy(logits):
    z = logits.numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    np.testing.assert_allclose(energy(logits), -np.log(np.exp(z).sum(1)), rtol=1e-12)
    np.testing.assert_allclose(msp(logits), -p.max(1), rtol=1e-12)
    np.testing.assert_allclose(max_logit(logits), -z.max(1), rtol=1e-12)


def test_sparsity_against_numpy():
    features = np.abs(np.random.default_rng(0).normal(0, 1, (50, 16)))
    active_units = features.sum(1) ** 2 / (features**2).sum(1)
    np.testing.assert_allclose(sparsity(torch.from_numpy(features)), -features.sum(1) / active_units, rtol=1e-12)


def test_sparsity_by_hand():
    # few and strong, the same sum over twice the units, the same number of units half as strong, none
    features = torch.tensor([[4.0, 4.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0], [2.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert sparsity(features).tolist() == [-4.0, -2.0, -2.0, 0.0]


def test_scores_against_pytorch_ood(logits):
    np.testing.assert_allclose(energy(logits), EnergyBased.score(logits), rtol=1e-12)
    np.testing.assert_allclose(msp(logits), MaxSoftmax.score(logits), rtol=1e-12)
    np.testing.assert_allclose(max_logit(logits), MaxLogit.score(logits), rtol=1e-12)


def test_larger_is_more_ood():
    confident, unsure = torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([[0.1, 0.0, 0.0]])
    for score in SCORES.values():
        assert score(confident, confident).item() < score(unsure, unsure).item()


def test_large_logits_do_not_overflow_and_bfloat16_is_widened():
    large = torch.tensor([[1000.0, 0.0], [-1000.0, -1000.0]])
    np.testing.assert_allclose(energy(large), [-1000.0, 1000.0 - np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(msp(large), [-1.0, -0.5], rtol=1e-6)
    for score in SCORES.values():
        assert score(large.bfloat16(), large).dtype == torch.float32
