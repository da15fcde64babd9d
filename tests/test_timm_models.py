"""Models of timm as classifiers: against timm's own forward pass, through weights files and a run."""

from __future__ import annotations

import sys

import pytest
import timm
import torch
from digits_images import write_digits

from srood.errors import InputError
from srood.models import build_model, timm_models
from srood.models.timm_models import TimmClassifier
from srood.models.weights import WeightsInfo, load_model, save_weights
from train.config import PretrainConfig, TuneConfig
from train.pretrain import pretrain
from train.tune import tune


def images(size: int, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "size", "width", "last"),
    [
        ("resnet18", 32, 512, "fc"),
        ("resnet18", 64, 512, "fc"),
        ("mobilenetv3_small_050", 64, 1024, "classifier"),  # a hidden layer lies between pooling and classifier
        ("test_convnext", 32, 64, "head.fc"),  # a layer norm does
        ("vit_tiny_patch16_224", 32, 192, "head"),  # 2x2 patches
        ("vit_tiny_patch16_224", 64, 192, "head"),
    ],
)
def test_logits_are_those_of_timm_with_the_same_weights(name, size, width, last):
    torch.manual_seed(0)
    model = build_model(f"timm:{name}", 10, size).eval()
    fixed = {"img_size": size} if "vit" in name else {}
    reference = timm.create_model(name, num_classes=10, **fixed).eval()
    weights = {key.removeprefix("body."): value for key, value in model.state_dict().items() if key[:5] == "body."}
    reference.load_state_dict(weights | {f"{last}.weight": model.fc.weight, f"{last}.bias": model.fc.bias})
    with torch.no_grad():
        logits, features = model(images(size), return_features=True)
        assert features.shape == (3, width)
        assert torch.allclose(logits, reference(images(size)), atol=1e-5)
        assert torch.allclose(features @ model.fc.weight.T + model.fc.bias, logits, atol=1e-5)
    # ends in a ReLU or not, as the documentation says
    assert (features.min() >= 0) == (name == "resnet18")


def test_weights_are_random_and_from_the_global_generator():
    built = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        built.append(build_model("timm:test_resnet.r160_in1k", 10))  # a tag of weights is not heeded
    first, again, other = (model.body.conv1[0].weight for model in built)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(module.training for module in built[0].modules())
    assert all(m.running_mean.abs().max() == 0 for m in built[0].modules() if isinstance(m, torch.nn.BatchNorm2d))


@pytest.mark.parametrize("name", ["timm:test_resnet", "timm:test_vit"])
def test_autocast_leaves_pooling_and_the_last_layer_in_float32(name):
    model = build_model(name, 10, 32).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits, features = model(images(32), return_features=True)
    assert logits.dtype == features.dtype == torch.float32
    assert torch.allclose(features @ model.fc.weight.T + model.fc.bias, logits, atol=1e-5)
    if name == "timm:test_resnet":
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            maps = model.maps(images(32))
        assert maps.dtype == torch.bfloat16
        assert torch.equal(features, maps.float().mean(dim=(2, 3)))


@pytest.mark.parametrize(("name", "size"), [("timm:test_resnet", 32), ("timm:test_vit", 64), ("timm:coat_tiny", 32)])
def test_weights_survive_a_round_trip(tmp_path, name, size):
    torch.manual_seed(0)
    model = build_model(name, 7, size).eval()
    save_weights(tmp_path / "w.safetensors", model.state_dict(), WeightsInfo(name, image_size=size))
    loaded, info = load_model(tmp_path / "w.safetensors")  # classes from fc, image size from the file
    assert (info.arch, info.image_size, loaded.fc.out_features) == (name, size, 7)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(images(size)), model(images(size)))


def test_a_file_that_does_not_say_its_image_size(tmp_path):
    save_weights(tmp_path / "w.safetensors", build_model("timm:test_vit", 7, 64).state_dict(), WeightsInfo())
    with pytest.raises(InputError, match=r"not those of timm:test_vit: body\.pos_embed has shape"):
        load_model(tmp_path / "w.safetensors", "timm:test_vit")
    model, _ = load_model(tmp_path / "w.safetensors", "timm:test_vit", image_size=64)
    assert model(images(64)).shape == (3, 7)


def test_what_cannot_be_built_gives_one_line(monkeypatch):
    for name, size, words in (
        ("resnt18", 32, r"timm:resnt18: timm \d.* knows no such model; did you mean resnet18 or "),
        ("qqqqqq", 32, r"knows no such model; `timm.list_models\(\)`"),
        ("hf-hub:timm/resnet18.a1_in1k", 32, "knows no such model"),  # nothing is downloaded
        ("", 32, "knows no such model"),
        ("resnet18.no_tag", 32, r"cannot be built for images of 32 pixels \(.*tag \(no_tag\)"),
        ("inception_v3", 32, r"cannot be built for images of 32 pixels \(RuntimeError: .*--image-size"),
        ("vit_tiny_patch16_224", 8, "cannot be built for images of 8 pixels"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            build_model(f"timm:{name}", 10, size)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "timm", None)  # as where it is not installed
    with pytest.raises(InputError, match=r"timm:resnet18: needs timm; install it with `pip install 'srood\[timm\]'`"):
        build_model("timm:resnet18", 10)


def test_features_of_another_shape_never_pass():
    unpooled = timm.create_model("test_resnet", num_classes=0, global_pool="")
    with pytest.raises(InputError, match=r"timm:test_resnet: its features are \(2, 96, 1, 1\), not \(N, D\)"):
        timm_models._width(unpooled, "test_resnet", 32)
    model = TimmClassifier("test_resnet", 10)
    model.body.reset_classifier(0, "")  # the pooling taken away after the fact
    with pytest.raises(RuntimeError, match=r"features of shape \(3, 96, 2, 2\) .*, not \(N, 96\)"):
        model(images(64))


def test_pretraining_and_tuning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    id_set = write_digits(tmp_path / "digits", train=24, test=8)
    for name in ("timm:test_resnet", "timm:test_vit"):
        settings = {"id": str(id_set), "model": name, "batch_size": 8, "max_steps": 2, "device": "cpu"}
        run = pretrain(PretrainConfig(**settings, image_size=64))
        assert run.name == f"digits-{name.replace(':', '-')}-pretrain-s0"
        tuned = tune(TuneConfig(**settings, checkpoint=run))  # 64 pixels, as the checkpoint says
        start, after = (load_model(folder / "model.safetensors") for folder in (run, tuned))
        assert start[1].image_size == after[1].image_size == 64
        assert not torch.equal(start[0].fc.weight, after[0].fc.weight)
