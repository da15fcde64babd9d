"""Architectures against the literature's parameter counts, and weights files."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
import torch
import torchvision
from pytorch_ood.model import WideResNet as PytorchOodWideResNet
from safetensors.torch import load_file, save_file

from srood.errors import InputError
from srood.models import MODELS, Classifier, build_model
from srood.models.weights import WeightsInfo, load_model, read_info, save_weights

SMALL = [name for name in MODELS if name != "wrn-28-10"]  # which is the same code as wrn-40-2, sixteen times the size
SLOW = pytest.mark.slow


def images(count: int = 3, size: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def jumbled(model: Classifier) -> Classifier:
    """The model in evaluation, with weights and statistics of batch norm that differ from channel to channel."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 1.5),
            ):
                tensor.uniform_(low, high, generator=generator)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "parameters", "width"),
    [
        ("resnet20", 269_722, 64),  # He et al. 2016, table 6: 0.27 M
        ("wrn-40-2", 2_243_546, 128),  # Zagoruyko and Komodakis 2016: 2.2 M
        ("wrn-28-10", 36_479_194, 640),  # the same: 36.5 M
        ("resnet18", 11_173_962, 512),  # torchvision's 11,689,512 with 1,000 classes, less the stem's and last layer's
        ("densenet", 769_162, 342),  # Huang et al. 2017, table 2: 0.8 M for DenseNet-BC, k = 12, L = 100
        ("allconv", 1_409_674 - (3 * 96 + 6 * 192), 192),  # outlier exposure's, less the biases before batch norm
    ],
)
def test_parameter_counts_and_shapes(name, parameters, width):
    for classes in (10, 100):
        with torch.device("meta"):
            model = build_model(name, classes)
            features = model.features(torch.empty(3, 3, 32, 32))
        assert sum(p.numel() for p in model.parameters()) == parameters + (classes - 10) * (width + 1)
        assert (features.shape, model.fc(features).shape) == ((3, width), (3, classes))
    assert set(MODELS) == {"resnet20", "wrn-40-2", "wrn-28-10", "resnet18", "densenet", "allconv"}


@pytest.mark.parametrize("name", SMALL)
def test_features_are_not_negative_and_the_last_layer_makes_logits_of_them(name):
    torch.manual_seed(0)
    model = jumbled(build_model(name, 10))
    with torch.no_grad():
        logits, features = model(images(), return_features=True)
        assert features.min() >= 0 and features.amax(dim=1).min() > 0
        assert torch.equal(model.features(images()), features)
        assert torch.equal(model(images()), logits)
        assert torch.allclose(features @ model.fc.weight.T + model.fc.bias, logits, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "kernels", "side"),
    [  # how many convolutions of each kernel size, and the side of the last maps for images of 32 pixels
        ("resnet20", {3: 19}, 8),  # depth 20 with fc
        ("wrn-40-2", {3: 37, 1: 3}, 8),  # depth 40, which counts the three shortcuts
        ("wrn-28-10", {3: 25, 1: 3}, 8),
        ("resnet18", {3: 17, 1: 3}, 4),  # depth 18 with fc; the three shortcuts do not count
        ("densenet", {3: 1 + 48, 1: 48 + 2}, 8),  # depth 100 with fc: stem, 3 x 16 pairs, two transitions
        ("allconv", {3: 7, 1: 2}, 6),  # nine, as in All-CNN-C
    ],
)
def test_depth_and_resolution(name, kernels, side):
    with torch.device("meta"):
        model = build_model(name, 10)
        assert model.maps(torch.empty(1, 3, 32, 32)).shape[2:] == (side, side)
    convolutions = [m.kernel_size for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert Counter(convolutions) == {(k, k): count for k, count in kernels.items()}
    # batch norm is swapped for another class while training: each layer a plain module, and no other kind
    assert {type(m).__name__ for m in model.modules() if "Norm" in type(m).__name__} == {"BatchNorm2d"}
    dropouts = {"wrn-40-2": [0.3] * 18, "wrn-28-10": [0.3] * 12, "allconv": [0.5] * 2}
    assert [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] == dropouts.get(name, [])


def test_layers_of_the_densenet():
    with torch.device("meta"):
        model = build_model("densenet", 10)
    for block, channels in ((model.block1, 24), (model.block2, 108), (model.block3, 150)):  # half of 216, of 300
        assert [layer.conv1.in_channels for layer in block] == [channels + 12 * i for i in range(16)]
        assert {(layer.conv1.out_channels, layer.conv2.out_channels) for layer in block} == {(48, 12)}
    assert model.fc.in_features == 150 + 16 * 12


def test_resnet18_is_torchvisions_with_another_stem():
    torch.manual_seed(0)
    model = jumbled(build_model("resnet18", 10))
    reference = torchvision.models.resnet18(num_classes=10)
    reference.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    reference.maxpool = torch.nn.Identity()
    reference.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.allclose(model(images()), reference.eval()(images()), atol=1e-5)


def test_densenet_is_torchvisions_with_another_stem():
    torch.manual_seed(0)
    model = jumbled(build_model("densenet", 10))
    reference = torchvision.models.DenseNet(12, (16, 16, 16), num_init_features=24, num_classes=10)
    reference.features.conv0 = torch.nn.Conv2d(3, 24, 3, padding=1, bias=False)
    for name in ("norm0", "relu0", "pool0"):
        setattr(reference.features, name, torch.nn.Identity())
    names = [
        (r"^conv1", "features.conv0"),
        (r"^block(\d)\.(\d+)", lambda m: f"features.denseblock{m[1]}.denselayer{int(m[2]) + 1}"),
        (r"^transition", "features.transition"),
        (r"^bn", "features.norm5"),
        (r"\.bn", ".norm"),
        (r"^fc", "classifier"),
    ]
    reference.load_state_dict(_renamed(model.state_dict(), names))
    with torch.no_grad():
        assert torch.allclose(model(images()), reference.eval()(images()), atol=1e-5)


def test_wide_resnet_is_pytorch_oods_also_with_dropout():
    torch.manual_seed(0)
    model = jumbled(build_model("wrn-40-2", 10))
    reference = PytorchOodWideResNet(10, depth=40, widen_factor=2, drop_rate=0.3)
    names = [(r"^group(\d)", r"block\1.layer"), (r"shortcut", "convShortcut"), (r"^bn\.", "bn1.")]
    reference.load_state_dict(_renamed(model.state_dict(), names))
    with torch.no_grad():
        for training in (False, True):
            torch.manual_seed(2)
            expected = reference.train(training)(images())
            torch.manual_seed(2)
            assert torch.allclose(model.train(training)(images()), expected, atol=1e-5)


def _renamed(tensors: dict[str, torch.Tensor], names: list) -> dict[str, torch.Tensor]:
    """The tensors with every pattern in their names replaced, one after the other."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, new in names:
            name = re.sub(pattern, new, name)
        renamed[name] = tensor
    return renamed


def test_the_tensors_of_wrn_40_2_have_the_names_of_its_weights_files():
    layers = ["bn1", "conv1", "bn2", "conv2"]
    modules = [f"group{g}.{b}.{layer}" for g in (1, 2, 3) for b in range(6) for layer in layers]
    modules += [f"group{g}.0.shortcut" for g in (1, 2, 3)] + ["conv1", "bn", "fc"]
    assert {name.rpartition(".")[0] for name in build_model("wrn-40-2", 10).state_dict()} == set(modules)


def test_allconv_against_a_plain_forward_pass():
    torch.manual_seed(0)
    model = jumbled(build_model("allconv", 10)).double()
    tensors = list(model.state_dict().values())
    x = images().double()
    for i in range(9):
        # weight, then gamma, beta, mean, variance and a counter of batch norm
        kernel, gamma, beta, mean, variance = tensors[6 * i : 6 * i + 5]
        padding = 1 if i < 6 else 0  # the third stage shrinks the maps from 8x8 to 6x6
        x = torch.nn.functional.conv2d(x, kernel, padding=padding)
        x = (x - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None] * gamma[:, None, None]
        x = (x + beta[:, None, None]).clamp(min=0)
        if i in (2, 5):
            x = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).amax(dim=(3, 5))
    assert x.shape == (3, 192, 6, 6)
    assert torch.allclose(model(images().double()), x.mean(dim=(2, 3)) @ tensors[-2].T + tensors[-1], atol=1e-9)


@pytest.mark.parametrize("name", SMALL)
def test_autocast_leaves_the_last_layer_in_float32(name):
    model = build_model(name, 10).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.maps(images(2)).dtype == torch.bfloat16
        logits, features = model(images(2), return_features=True)
    assert logits.dtype == features.dtype == torch.float32
    assert torch.allclose(features @ model.fc.weight.T + model.fc.bias, logits, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet20", "wrn-40-2", "resnet18", "allconv", pytest.param("densenet", marks=SLOW)])
def test_torch_export_sees_one_graph_for_any_batch(name):
    torch.manual_seed(0)
    model = jumbled(build_model(name, 10))
    program = torch.export.export(model, (images(2),), dynamic_shapes=({0: torch.export.Dim("N")},))
    with torch.no_grad():
        assert torch.allclose(program.module()(images(5)), model(images(5)), atol=1e-5)


def test_torch_compile_takes_a_model_whole_under_autocast():
    model = build_model("resnet20", 10).eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for got, expected in zip(compiled(images(2), return_features=True), model(images(2), True), strict=True):
            assert torch.equal(got, expected)


@pytest.mark.parametrize("name", MODELS)
def test_images_of_other_sizes_and_too_small_ones(name):
    smallest = 12 if name == "allconv" else 8  # 8 is the least that --image-size takes
    with torch.device("meta"):
        model = build_model(name, 10, image_size=smallest)
        for size in (smallest, 33, 64, 224):
            assert model.features(torch.empty(2, 3, size, size)).shape == (2, model.fc.in_features)
    if name == "allconv":
        with pytest.raises(
            InputError, match="model allconv: takes images of at least 12 pixels, not 11; .*--image-size"
        ):
            build_model(name, 10, image_size=11)


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


@pytest.mark.parametrize("name", [*SMALL, pytest.param("wrn-28-10", marks=SLOW)])
def test_weights_survive_a_round_trip(tmp_path, name):
    info = WeightsInfo(name, "digits", (0.1, 0.2, 0.3), (1 / 3, 0.5, 0.25), ("zéro", "one, two"), 32)
    model = jumbled(build_model(name, 2))
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
    with pytest.raises(
        InputError, match="does not say its architecture; give --model, one of .*densenet, allconv or timm:NAME"
    ):
        load_model(tmp_path / "bare.safetensors")
    with pytest.raises(
        InputError, match=r"not those of wrn-40-2: fc\.weight has shape \(10, 64\) instead of \(10, 128\)"
    ):
        load_model(tmp_path / "bare.safetensors", "wrn-40-2")
    with pytest.raises(InputError, match="model 'alexnet' is unknown; choose one of resnet20, wrn-40-2.* or timm:NAME"):
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
