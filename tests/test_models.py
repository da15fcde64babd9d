"""Architectures against the literature's parameter counts, and weights files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from srood.errors import InputError
from srood.models import MODELS, build_model
from srood.models.weights import WeightsInfo, load_model, read_info, save_weights


@pytest.mark.parametrize(
    ("name", "parameters", "width"),
    [("resnet20", 269_722, 64), ("wrn-40-2", 2_243_546, 128)],  # He et al. 2016 (0.27 M); Zagoruyko 2016 (2.2 M)
)
def test_parameter_counts_and_shapes(name, parameters, width):
    model = build_model(name, 10).eval()
    assert sum(p.numel() for p in model.parameters()) == parameters
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, features = model(x, return_features=True)
        assert logits.shape == (3, 10)
        assert features.shape == (3, width)
        assert features.min() >= 0
        assert torch.equal(model(x), logits)
        assert torch.equal(model.features(x), features)
        assert torch.allclose(features @ model.fc.weight.T + model.fc.bias, logits, atol=1e-5)


def test_depth_of_the_wide_resnet():
    model = build_model("wrn-40-2", 10)
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) == 1 + 36  # depth 6n + 4 with n = 6: these and the three 1x1 shortcuts
    assert [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] == [0.3] * 18


def test_autocast_leaves_the_last_layer_in_float32():
    model = build_model("resnet20", 10).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits, features = model(x, return_features=True)
    assert logits.dtype == features.dtype == torch.float32
    assert torch.allclose(features @ model.fc.weight.T + model.fc.bias, logits, atol=1e-5)


def test_published_weights_load_and_agree_with_a_plain_forward_pass(srood_data):
    path = srood_data / "models" / "resnet20-cifar10.safetensors"
    model, info = load_model(path)
    assert info == WeightsInfo("resnet20", "cifar10", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), None, None)
    x = np.random.default_rng(0).normal(size=(2, 3, 32, 32))
    w = {name: value.double() for name, value in load_file(path).items()}

    def convolve(x, name, stride=1):
        return torch.nn.functional.conv2d(x, w[f"{name}.weight"], stride=stride, padding=1)

    def normalise(x, name):
        scale = w[f"{name}.weight"] / (w[f"{name}.running_var"] + 1e-5).sqrt()
        return x * scale[:, None, None] + (w[f"{name}.bias"] - w[f"{name}.running_mean"] * scale)[:, None, None]

    y = normalise(convolve(torch.tensor(x), "conv1"), "bn1").clamp(min=0)
    for layer in (1, 2, 3):
        for block in range(3):
            name, down = f"layer{layer}.{block}", layer > 1 and block == 0
            z = normalise(convolve(y, f"{name}.conv1", 2 if down else 1), f"{name}.bn1").clamp(min=0)
            z = normalise(convolve(z, f"{name}.conv2"), f"{name}.bn2")
            if down:
                zeros = torch.zeros(2, y.shape[1] // 2, y.shape[2] // 2, y.shape[3] // 2)
                y = torch.cat([zeros, y[:, :, ::2, ::2], zeros], dim=1)
            y = (y + z).clamp(min=0)
    expected = y.mean(dim=(2, 3)) @ w["fc.weight"].T + w["fc.bias"]
    with torch.no_grad():
        got = model.eval()(torch.tensor(x).float())
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_weights_survive_a_round_trip(tmp_path, name):
    info = WeightsInfo(name, "digits", (0.1, 0.2, 0.3), (1 / 3, 0.5, 0.25), ("zéro", "one, two"), 32)
    model = build_model(name, 2)
    save_weights(tmp_path / "w.safetensors", model.state_dict(), info)
    loaded, read = load_model(tmp_path / "w.safetensors")
    assert read == info
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_bad_weights_files_give_one_line(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.safetensors: no such weights file"):
        read_info(tmp_path / "nothing.safetensors")
    torch.save(build_model("resnet20", 2).state_dict(), tmp_path / "old.pth")
    with pytest.raises(InputError, match=r"old\.pth: is not a safetensors file.*pickled"):
        load_model(tmp_path / "old.pth", "resnet20")
    (tmp_path / "empty.safetensors").touch()
    with pytest.raises(InputError, match="is not a safetensors file"):
        read_info(tmp_path / "empty.safetensors")

    resnet = build_model("resnet20", 10).state_dict()
    save_file(resnet, tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match="does not say its architecture"):
        load_model(tmp_path / "bare.safetensors")
    with pytest.raises(
        InputError, match=r"not those of wrn-40-2: fc\.weight has shape \(10, 64\) instead of \(10, 128\)"
    ):
        load_model(tmp_path / "bare.safetensors", "wrn-40-2")
    with pytest.raises(InputError, match="model 'alexnet' is unknown; choose one of resnet20, wrn-40-2"):
        load_model(tmp_path / "bare.safetensors", "alexnet")
    save_file(resnet, tmp_path / "named.safetensors", {"arch": "resnet20"})
    with pytest.raises(InputError, match="holds weights of resnet20, not of wrn-40-2"):
        load_model(tmp_path / "named.safetensors", "wrn-40-2")
    save_file(resnet, tmp_path / "odd.safetensors", {"mean": "0.5,0.5"})
    with pytest.raises(InputError, match="metadata cannot be understood"):
        read_info(tmp_path / "odd.safetensors")
    del resnet["layer2.1.bn1.weight"]
    save_file(resnet, tmp_path / "short.safetensors")
    with pytest.raises(InputError, match=r"layer2\.1\.bn1\.weight is missing"):
        load_model(tmp_path / "short.safetensors", "resnet20")
    broken = build_model("resnet20", 10).state_dict()
    broken["conv1.weight"][0] = float("nan")
    save_file(broken, tmp_path / "nan.safetensors")
    with pytest.raises(InputError, match=r"conv1\.weight holds values that are not finite"):
        load_model(tmp_path / "nan.safetensors", "resnet20")
