"""The training loop: its schedule, its steps against a plain rewriting of the method, and resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from digits_images import write_digits, write_noise
from safetensors.torch import load_file

from srood.datasets import load_images
from srood.errors import InputError
from srood.models import build_model
from srood.models.weights import WeightsInfo, load_model, save_weights
from srood.outliers import OutlierSet
from train import batches
from train.config import PretrainConfig, TuneConfig
from train.logbook import cut_log
from train.loop import learning_rate
from train.plan import Plan
from train.pretrain import pretrain
from train.tune import resume, tune

CPU = {"device": "cpu", "precision": "32-true"}


@pytest.fixture(scope="module")
def id_set(tmp_path_factory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def outliers(tmp_path_factory) -> Path:
    return write_noise(tmp_path_factory.mktemp("outliers"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "start.safetensors"
    info = WeightsInfo("resnet20", None, (0.3, 0.3, 0.3), (0.4, 0.4, 0.4))
    save_weights(path, build_model("resnet20", 10).state_dict(), info)
    return path


def test_the_schedule_is_torchs_half_cosine():
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=40, eta_min=1e-6)
    for step in range(41):
        assert learning_rate(step, 40, 0.1, 1e-6) == pytest.approx(reference.get_last_lr()[0], rel=1e-9)
        optimiser.step()
        reference.step()


@pytest.mark.parametrize("workflow", ["sr", "sroe"])
def test_steps_are_those_of_a_plain_rewriting(id_set, outliers, checkpoint, tmp_path, workflow):
    settings = {"id": str(id_set), "model": "resnet20", "checkpoint": checkpoint, "lr": 0.01, "max_steps": 3, **CPU}
    settings |= {"batch_size": 16, "outlier_batch_size": 24, "alpha": 0.1, "crop_padding": 2}
    config = TuneConfig(**settings, **({"outliers": outliers, "beta": 0.7} if workflow == "sroe" else {}))
    got = load_file(tune(config, tmp_path / "run") / "model.safetensors")

    model, _ = load_model(checkpoint)
    model.train()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    images = load_images(str(id_set / "train.parquet"))
    noise = torch.from_numpy(OutlierSet.open(outliers).read_images())
    buffers: dict[str, torch.Tensor] = {}
    plan = Plan(config, len(images.labels), (len(noise),), (24,))
    for step in range(3):
        rows = plan.rows(step).id
        x = batches.augment(torch.from_numpy(images.images)[rows], 2, 0, batches.ID_AUGMENTATION, step)
        if workflow == "sroe":
            rest = noise[plan.rows(step).outliers]
            x = torch.cat([x, batches.augment(rest, 2, 0, batches.OUTLIER_AUGMENTATION, step)])
        x = batches.normalise(x, (0.3,) * 3, (0.4,) * 3)
        features = model.features(x)
        z = model.fc(features)
        y = torch.from_numpy(images.labels)[rows]
        loss = -z[:16].log_softmax(1)[torch.arange(16), y].mean() + 0.1 * features[:16].abs().sum() / 16
        if workflow == "sroe":
            loss = loss - 0.7 * z[16:].log_softmax(1).mean()  # cross entropy from the uniform distribution
        model.zero_grad()
        loss.backward()
        lr = 1e-6 + (0.01 - 1e-6) * (1 + np.cos(np.pi * step / 3)) / 2
        with torch.no_grad():
            for name, p in model.named_parameters():
                assert p.grad is not None
                gradient = p.grad + 5e-4 * p
                buffers[name] = gradient if step == 0 else 0.9 * buffers[name] + gradient
                p -= lr * (gradient + 0.9 * buffers[name])  # Nesterov
    for name, expected in model.state_dict().items():
        moved = (expected - start[name]).double().norm()  # processors differ in the last bits, which steps enlarge
        assert (got[name] - expected).double().norm() <= 0.02 * moved + 1e-6, name


def test_a_run_folder_says_everything(id_set, outliers, checkpoint, tmp_path):
    config = TuneConfig(
        id=str(id_set),
        model="resnet20",
        checkpoint=checkpoint,
        outliers=outliers,
        batch_size=64,
        epochs=2,
        **CPU,
        outlier_batch_size=30,
    )
    run = tune(config, tmp_path / "run")
    names = sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())
    state = [f"checkpoints/step-00000008/{name}" for name in ("sha256.json", "state.pt", "weights.safetensors")]
    assert names == [*state, "config.yaml", "metrics.jsonl", "model.safetensors", "run.json"]
    record = json.loads((run / "run.json").read_text())
    assert record["steps"] == 8  # two epochs of 64 + 64 + 64 + 8
    assert record["id"]["images"] == 200
    assert record["outliers"][0]["fingerprint"] == OutlierSet.open(outliers).fingerprint
    assert record["precision"] == "32-true"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8]
    for line in lines:
        total = line["cross_entropy"] + 0.02 * line["sparsity"] + 0.5 * line["outlier_exposure"]
        assert line["loss"] == pytest.approx(total, rel=1e-5)
        assert line["images_per_second"] > 0
    info = load_model(run / "model.safetensors")[1]
    assert (info.arch, info.mean, info.class_names) == ("resnet20", (0.3, 0.3, 0.3), tuple("0123456789"))


def test_training_learns_and_the_loss_falls(id_set, tmp_path):
    config = PretrainConfig(id=str(id_set), model="resnet20", batch_size=32, epochs=4, lr=0.05, crop_padding=0, **CPU)
    run = pretrain(config, tmp_path / "run")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["cross_entropy"] < 0.7 * lines[0]["cross_entropy"]
    assert lines[-1]["lr"] < lines[0]["lr"]


def test_same_seed_same_weights_other_seed_others(id_set, checkpoint, tmp_path):
    weights = []
    for number, seed in enumerate((3, 3, 4)):
        config = TuneConfig(
            id=str(id_set), model="resnet20", checkpoint=checkpoint, batch_size=32, max_steps=2, seed=seed, **CPU
        )
        weights.append((tune(config, tmp_path / str(number)) / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_a_killed_run_continues_bit_for_bit(id_set, tmp_path):
    # wrn-40-2, so that the random generator of dropout has to be where it was; small images, for time
    outliers = write_noise(tmp_path / "outliers", size=16)
    torch.manual_seed(0)
    start = tmp_path / "start.safetensors"
    info = WeightsInfo("wrn-40-2", None, (0.3, 0.3, 0.3), (0.4, 0.4, 0.4), image_size=16)
    save_weights(start, build_model("wrn-40-2", 10).state_dict(), info)
    settings = {"id": str(id_set), "model": "wrn-40-2", "checkpoint": start, "outliers": outliers, "lr": 0.01, **CPU}
    settings |= {"batch_size": 6, "outlier_batch_size": 9, "max_steps": 12, "checkpoint_every": 2}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    killed, checkpoints = tmp_path / "killed", tmp_path / "killed" / "checkpoints"
    command = [sys.executable, "-m", "train.cli", "train", *options, "--out", str(killed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any((checkpoints / f"step-{step:08d}").is_dir() for step in (4, 6, 8)):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "model.safetensors").exists()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the other process: sums are split by thread
    try:
        resume(killed)
        whole = tune(TuneConfig(**settings), tmp_path / "whole")
    finally:
        torch.set_num_threads(threads)
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    steps = [json.loads(line)["step"] for line in (killed / "metrics.jsonl").read_text().splitlines()]
    assert steps == [12]


def test_resuming_a_finished_run_changes_nothing(id_set, checkpoint, tmp_path):
    config = TuneConfig(id=str(id_set), model="resnet20", checkpoint=checkpoint, batch_size=8, max_steps=1, **CPU)
    run = tune(config, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert resume(run) == run
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_loss_that_is_not_finite_stops_the_run(id_set, checkpoint, tmp_path):
    config = TuneConfig(id=str(id_set), model="resnet20", checkpoint=checkpoint, batch_size=8, lr=1e30, **CPU)
    with pytest.raises(
        InputError, match=r"not finite .*at step [12]; lower --lr.*last good checkpoint is .*step-00000000"
    ):
        tune(config, tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()
    load_model(tmp_path / "run" / "checkpoints" / "step-00000000" / "weights.safetensors")


def test_resuming_on_other_images_or_outliers_is_refused(outliers, checkpoint, tmp_path):
    id_set = write_digits(tmp_path / "digits", train=16)
    config = TuneConfig(
        id=str(id_set), model="resnet20", checkpoint=checkpoint, outliers=outliers, batch_size=8, max_steps=1, **CPU
    )
    run = tune(config, tmp_path / "run")
    (run / "model.safetensors").unlink()
    write_digits(tmp_path / "digits", train=17)
    with pytest.raises(InputError, match=r"train\.parquet: its images are not those that .*run was started with"):
        resume(run)
    write_digits(tmp_path / "digits", train=16)
    record = json.loads((run / "run.json").read_text())
    record["outliers"][0]["fingerprint"] = "0" * 64
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"mini\.h5: is not the outlier set"):
        resume(run)


def test_a_log_is_cut_at_a_step_and_at_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2}\n{"step": 4}\n{"step": 6}\n{"st')
    cut_log(path, 4)
    assert path.read_text() == '{"step": 2}\n{"step": 4}\n'
