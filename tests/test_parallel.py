"""Several processes give what one process gives with the joint batch; several parts, what they add up to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from digits_images import write_training_files
from safetensors.torch import load_file

from srood.datasets import load_images
from srood.errors import InputError
from srood.models.weights import load_model
from srood.outliers import OutlierSet
from train import batches
from train.config import TuneConfig
from train.plan import Plan
from train.tune import tune

SETTINGS = {"model": "resnet20", "device": "cpu", "precision": "32-true", "lr": 0.001, "crop_padding": 2}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, object]:
    return write_training_files(tmp_path_factory.mktemp("files"), 45, (0.3, 0.3, 0.3), (0.4, 0.4, 0.4))


def _lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _runs(files, tmp_path, **settings) -> tuple[Path, Path]:
    one, two = (
        tune(TuneConfig(**{**SETTINGS, **files, **settings}, devices=devices), tmp_path / f"{devices}")
        for devices in (1, 2)
    )
    return one, two


def test_two_processes_have_the_loss_of_one_with_the_joint_batch(files, tmp_path):
    # 35 of 45 images in batches of 17: the last has one, so one process has no ID image
    settings = {"batch_size": 17, "outlier_batch_size": 9, "epochs": 2, "validation": 0.1}
    # larger steps let rounding grow within a few of them
    one, two = (_lines(run) for run in _runs(files, tmp_path, lr=1e-5, **settings))
    assert [line["step"] for line in one] == [line["step"] for line in two] == [3, 6]
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys() >= {"loss", "outlier_exposure", "validation_loss", "validation_accuracy"}
        for name in a.keys() - {"images_per_second", "seconds"}:
            assert b[name] == pytest.approx(a[name], rel=1e-5, abs=1e-5), name


def test_two_processes_take_the_step_of_one_with_the_joint_batch(files, tmp_path):
    # a loss that is no mean over images, statistics of some rows, parts of unequal size; a step that is all gradient
    settings = {"method": "oecc", "batch_norm": "id", "accumulate": 2, "batch_size": 13, "outlier_batch_size": 10}
    one, two = (load_file(run / "model.safetensors") for run in _runs(files, tmp_path, lr=1.0, max_steps=1, **settings))
    start = load_file(files["checkpoint"])
    for name, value in one.items():
        scale = (value - start[name]).abs().max().item()
        assert scale > 0, name
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-4 * scale)


def test_accumulated_parts_are_those_of_a_plain_rewriting(files, tmp_path):
    settings = {**SETTINGS, **files, "batch_size": 12, "outlier_batch_size": 8, "max_steps": 1, "accumulate": 4}
    config = TuneConfig(**settings)
    got = load_file(tune(config, tmp_path / "run") / "model.safetensors")
    model = load_model(files["checkpoint"])[0].train()
    images, noise = load_images(f"{files['id']}/train.parquet", 16), OutlierSet.open(files["outliers"]).read_images()
    rows = Plan(config, 45, (50,), (8,)).rows(0)
    x = batches.augment(torch.from_numpy(images.images)[rows.id], 2, 0, batches.ID_AUGMENTATION, 0)
    others = batches.augment(torch.from_numpy(noise)[rows.outliers], 2, 0, batches.OUTLIER_AUGMENTATION, 0)
    x, others = (batches.normalise(part, (0.3,) * 3, (0.4,) * 3) for part in (x, others))
    y = torch.from_numpy(images.labels)[rows.id]
    total = torch.zeros(())
    for part in range(4):
        logits, features = model(torch.cat([x.split(3)[part], others.split(2)[part]]), return_features=True)
        ce = torch.nn.functional.cross_entropy(logits[:3], y.split(3)[part])
        oe = -logits[3:].log_softmax(1).mean()
        total = total + (ce + 0.02 * features[:3].sum() / 3 + 0.5 * oe) / 4
    total.backward()
    for name, p in model.named_parameters():
        expected = p.detach() - 0.001 * 1.9 * (p.grad + 5e-4 * p.detach())
        torch.testing.assert_close(got[name], expected, rtol=1e-4, atol=1e-5)
    assert _lines(tmp_path / "run")[0]["loss"] == pytest.approx(total.item(), rel=1e-5)


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(files, tmp_path):
    settings = {**SETTINGS, **files, "batch_size": 15, "outlier_batch_size": 9, "max_steps": 2}
    plain, compiled = (tune(TuneConfig(**settings, compile=c), tmp_path / str(c)) for c in (False, True))
    assert _lines(compiled)[0]["loss"] == pytest.approx(_lines(plain)[0]["loss"], rel=1e-4)
    a, b = (load_file(run / "model.safetensors") for run in (plain, compiled))
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=1e-2, atol=1e-3)


def test_batches_that_cannot_be_divided_are_refused(files, tmp_path):
    settings = {**SETTINGS, **files, "batch_size": 5}
    with pytest.raises(InputError, match=r"--batch-size 5: cannot be divided into 3 parts for 2 devices"):
        tune(TuneConfig(**settings, accumulate=3, devices=2), tmp_path / "run")
    with pytest.raises(InputError, match=r"--outlier-batch-size 2: cannot be divided"):
        tune(TuneConfig(**settings, accumulate=3, outlier_batch_size=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("devices", "number", "code"),
    [(1, signal.SIGTERM, 0), pytest.param(2, signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_run_that_is_told_to_stop_saves_and_can_go_on(files, tmp_path, devices, number, code):
    settings = {
        **SETTINGS,
        **files,
        "batch_size": 4,
        "outlier_batch_size": 4,
        "epochs": 8 // devices,
        "devices": devices,
    }
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    whole, told = tmp_path / "whole", tmp_path / "told"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(*arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "train.cli", "train", *arguments]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    process = start(*options, f"--out={told}")
    deadline = time.monotonic() + 120
    while not (told / "metrics.jsonl").exists() or not (told / "metrics.jsonl").read_text():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (code, ""), err
    assert f"continue with: srood train --resume {told}" in err
    assert "Traceback" not in err
    saved = [path.name for path in (told / "checkpoints").iterdir()]
    assert len(saved) == 1 and saved[0] != "step-00000000"
    assert not (told / "model.safetensors").exists()
    for arguments in ([f"--resume={told}"], [*options, f"--out={whole}"]):
        process = start(*arguments)
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    assert (told / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
