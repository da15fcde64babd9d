"""Batch norm over chosen rows against formulas, torch's own, and finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from srood.errors import InputError
from srood.models import build_model
from train.batchnorm import BatchNorm, choose_rows


def _layer(rows: int | None) -> BatchNorm:
    model = nn.Sequential(nn.BatchNorm2d(3))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([0.5, 2.0, -1.0]))
        model[0].bias.copy_(torch.tensor([0.0, 0.3, -0.2]))
    (layer,) = choose_rows(model, id_only=True, shared=False)
    layer.rows = rows
    return layer.train()


def _x(rows: int = 6) -> torch.Tensor:
    return torch.randn(rows, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1


def test_statistics_are_those_of_the_first_rows_and_apply_to_all():
    layer, x = _layer(4), _x()
    got = layer(x)
    mean, var = x[:4].mean(dim=(0, 2, 3)), x[:4].var(dim=(0, 2, 3), correction=0)
    for channel, (weight, bias) in enumerate(zip((0.5, 2.0, -1.0), (0.0, 0.3, -0.2), strict=True)):
        expected = (x[:, channel] - mean[channel]) / (var[channel] + 1e-5).sqrt() * weight + bias
        torch.testing.assert_close(got[:, channel], expected, rtol=1e-5, atol=1e-5)
    unbiased = x[:4].var(dim=(0, 2, 3))
    torch.testing.assert_close(layer.running_mean, 0.1 * mean)
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * unbiased)
    assert layer.num_batches_tracked == 1


def test_over_all_rows_it_is_torchs_batch_norm_in_value_and_gradient():
    plain = nn.BatchNorm2d(3).train()
    layer, x, y = _layer(6), _x().requires_grad_(), _x().requires_grad_()
    plain.load_state_dict(_layer(6).state_dict())
    weight = torch.randn(6, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    (layer(x) * weight).sum().backward()
    (plain(y) * weight).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.running_var, plain.running_var)


def test_the_gradient_of_outlier_rows_flows_through_the_statistics():
    layer, x = _layer(4), _x().requires_grad_()
    layer(x)[4:].square().sum().backward()
    assert x.grad is not None
    for index in ((0, 1, 2, 3), (5, 2, 1, 0)):  # of an ID row and of an outlier
        ends = []
        for step in (1e-2, -1e-2):
            moved = x.detach().clone()
            moved[index] += step
            ends.append(layer(moved)[4:].double().square().sum().item())
        assert x.grad[index].item() == pytest.approx((ends[0] - ends[1]) / 2e-2, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
def test_gradients_are_those_of_the_formula_in_float64(dtype, tolerance):
    layer, weight = _layer(4), torch.randn(6, 3, 4, 5, generator=torch.Generator().manual_seed(1)).to(dtype)
    x = _x().to(dtype).requires_grad_()
    (layer(x) * weight).sum().backward()
    exact = _x().to(dtype).double().requires_grad_()
    scale, shift = (part.detach().double().requires_grad_() for part in (layer.weight, layer.bias))
    var, mean = torch.var_mean(exact[:4], dim=(0, 2, 3), correction=0)
    normalised = (exact - mean[:, None, None]) / (var + layer.eps).sqrt()[:, None, None]
    ((normalised * scale[:, None, None] + shift[:, None, None]) * weight.double()).sum().backward()
    for got, expected in ((x.grad, exact.grad), (layer.weight.grad, scale.grad), (layer.bias.grad, shift.grad)):
        assert (got.double() - expected).norm() < tolerance * expected.norm()


def test_evaluation_and_the_tensors_are_torchs_own():
    model = build_model("resnet20", 10)
    names = list(model.state_dict())
    layers = choose_rows(model, id_only=True, shared=False)
    assert len(layers) == 19 and list(model.state_dict()) == names
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for layer in layers:
        layer.rows = 2
    with torch.no_grad():
        model.train()(x)
        fresh = build_model("resnet20", 10)
        fresh.load_state_dict(model.state_dict())
        torch.testing.assert_close(model.eval()(x), fresh.eval()(x))
        torch.testing.assert_close(model.train()(x)[:2], model(torch.cat([x[:2], x[:2] + 9]))[:2])  # outliers unseen


def test_half_precision_keeps_its_type_and_statistics_in_float32():
    layer, x = _layer(4), _x()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = layer(x.bfloat16())
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), _layer(4)(x.bfloat16().float()), rtol=1e-2, atol=1e-2)


def test_timms_batch_norm_with_its_activation_and_other_kinds():
    model = build_model("timm:mobilenetv3_small_050", 5).train()
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        expected = model.features(x)
        model.load_state_dict(state)
        for layer in choose_rows(model, id_only=True, shared=False):
            layer.rows = 4
        torch.testing.assert_close(model.features(x), expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match="--devices: layer 0 is a BatchNorm1d"):
        choose_rows(nn.Sequential(nn.BatchNorm1d(3)), id_only=False, shared=True)
    untouched = nn.Sequential(nn.BatchNorm2d(3))
    assert choose_rows(untouched, id_only=False, shared=False) == []
    assert type(untouched[0]) is nn.BatchNorm2d
