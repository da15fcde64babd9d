"""ODIN against its two steps written out, and against pytorch-ood."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_ood.detector import ODIN
from torch import nn

from srood.models import build_model
from srood.odin import odin

STD = (0.25, 0.2, 0.3)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    model = build_model("resnet20", 5).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # so that batch norm is not the identity
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(6, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_odin_against_its_steps(model, images):
    scores = odin(model, images, STD, temperature=10.0, epsilon=0.01)
    for image, got in zip(images, scores, strict=True):
        x = image[None].clone().requires_grad_()
        p = (model(x) / 10).softmax(dim=1)
        (-p.amax(dim=1).log()).sum().backward()
        moved = x.detach().clone()
        for channel in range(3):
            moved[0, channel] -= 0.01 / STD[channel] * x.grad[0, channel].sign()
        with torch.no_grad():
            after = (model(moved) / 10).softmax(dim=1).amax()
        assert got.item() == pytest.approx(-after.item(), rel=1e-9)
        assert after > p.amax()  # the image moves towards its class


def test_odin_with_the_published_values_against_pytorch_ood(model, images):
    expected = ODIN(model, eps=0.0014, temperature=1000.0, norm_std=list(STD)).predict(images)
    np.testing.assert_allclose(odin(model, images, STD), expected, rtol=1e-9)
    unscaled = ODIN(model, eps=0.0014, temperature=1000.0).predict(images)
    np.testing.assert_allclose(odin(model, images), unscaled, rtol=1e-9)
    assert not np.allclose(unscaled, expected, rtol=1e-9)


def test_scores_in_float32_do_not_tie_and_no_gradient_is_left(model, images):
    single = build_model("resnet20", 5)
    single.load_state_dict(model.state_dict())
    single.eval()
    with torch.inference_mode():  # as in an evaluation
        scores = odin(single, images.float(), STD)
    assert scores.dtype == torch.float64 and len(scores.unique()) == len(images)
    np.testing.assert_allclose(scores, odin(model, images, STD), atol=1e-6)
    assert all(parameter.grad is None for parameter in single.parameters())


def test_larger_is_more_ood():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    linear[1].weight.data, linear[1].bias.data = torch.zeros(3, 12), torch.zeros(3)
    linear[1].weight.data[0] = 1.0
    seen, unseen = torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    assert odin(linear, unseen) > odin(linear, seen)
