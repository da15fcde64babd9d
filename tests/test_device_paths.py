"""What training does on a GPU, tried on the CPU: numbers fetched later, channels_last, images held elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from digits_images import write_training_files
from safetensors.torch import load_file

from srood.errors import InputError
from train import device_images, loop, steps
from train.config import TuneConfig
from train.device_images import held_images, taken
from train.steps import StepNumbers, Stepper
from train.tune import resume, tune

SMALL = {"model": "resnet20", "device": "cpu", "precision": "32-true", "batch_size": 2, "outlier_batch_size": 3}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, object]:
    return write_training_files(tmp_path_factory.mktemp("files"), 60, (0.3, 0.3, 0.3), (0.4, 0.4, 0.4))


def lines(run: Path) -> list[dict[str, float]]:
    """The log without what it says of time."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in found]


def test_numbers_that_are_fetched_later_are_the_same(files, tmp_path, monkeypatch):
    settings = {**SMALL, **files, "epochs": 2, "accumulate": 2, "lr": 0.01, "checkpoint_every": 7}
    at_once = tune(TuneConfig(**settings), tmp_path / "at-once")
    monkeypatch.setattr(steps, "deferred", lambda device: True)
    calls: list[str] = []
    fetched, take = StepNumbers.fetched, Stepper.take
    monkeypatch.setattr(StepNumbers, "fetched", lambda self: calls.append("fetch") or fetched(self))
    monkeypatch.setattr(Stepper, "take", lambda self, *args: calls.append("take") or take(self, *args))
    settings["checkpoint_every"] = 23
    later = tune(TuneConfig(**settings), tmp_path / "later")
    assert calls.count("fetch") == calls.count("take") == 60
    # a stretch of steps without a fetch between them: the first alone, then ten until 20, 23, 30, ...
    stretches = [len(part) for part in "".join("t" if call == "take" else " " for call in calls).split()]
    assert stretches == [1, 9, 10, 3, 7, 10, 6, 4, 10]
    assert lines(later) == lines(at_once) and len(lines(later)) == 3
    assert (later / "model.safetensors").read_bytes() == (at_once / "model.safetensors").read_bytes()

    def cut_off(self, step, rows, lr):
        if step == 50:
            raise RuntimeError("cut off")
        return take(self, step, rows, lr)

    monkeypatch.setattr(Stepper, "take", cut_off)
    with pytest.raises(RuntimeError, match="cut off"):
        tune(TuneConfig(**settings), tmp_path / "cut")
    monkeypatch.setattr(Stepper, "take", take)
    resume(tmp_path / "cut")
    assert lines(tmp_path / "cut") == lines(at_once)
    assert loop.LOG_EVERY % loop.FETCH_EVERY == 0


def test_a_loss_that_is_not_finite_is_found_later_with_its_step(files, tmp_path, monkeypatch):
    found = []
    for later in (False, True):
        monkeypatch.setattr(steps, "deferred", lambda device, later=later: later)
        with pytest.raises(InputError, match=r"not finite .*at step \d; lower --lr") as error:
            tune(TuneConfig(**{**SMALL, **files, "lr": 1e30}), tmp_path / str(later))
        found.append(str(error.value).replace(str(tmp_path / str(later)), "RUN"))
        assert [path.name for path in (tmp_path / str(later) / "checkpoints").iterdir()] == ["step-00000000"]
    assert found[0] == found[1]


def test_channels_last_learns_the_same(files, tmp_path, monkeypatch):
    settings = {**SMALL, **files, "batch_size": 15, "outlier_batch_size": 9, "max_steps": 2}
    plain = tune(TuneConfig(**settings), tmp_path / "plain")
    monkeypatch.setattr(steps, "memory_format", lambda device: torch.channels_last)
    given = []
    make = Stepper.__init__

    def watched(self, *args):
        make(self, *args)
        self.classifier.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))

    monkeypatch.setattr(Stepper, "__init__", watched)
    last = tune(TuneConfig(**settings), tmp_path / "last")
    assert len(given) == 2 and all(x.is_contiguous(memory_format=torch.channels_last) for x in given)
    assert lines(last)[0]["loss"] == pytest.approx(lines(plain)[0]["loss"], rel=1e-4)
    a, b = (load_file(run / "model.safetensors") for run in (plain, last))
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=1e-2, atol=1e-3)


def test_images_are_held_on_the_device_where_they_fit(monkeypatch):
    images = torch.arange(10 * 4 * 4 * 3, dtype=torch.uint8).view(10, 4, 4, 3)
    elsewhere = torch.device("meta")
    for free, fits in ((2 * images.nbytes, True), (2 * images.nbytes - 1, False)):
        monkeypatch.setattr(device_images, "free_bytes", lambda device, free=free: free)
        held = held_images(images, elsewhere)
        assert held.device.type == ("meta" if fits else "cpu")
        assert taken(held, torch.tensor([3, 1]), elsewhere).shape == (2, 4, 4, 3)
    rows = torch.tensor([7, 7, 0])
    assert torch.equal(taken(images, rows, torch.device("cpu")), images[rows])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_has_the_losses_of_the_cpu(files, tmp_path):
    settings = {**SMALL, **files, "batch_size": 15, "outlier_batch_size": 9, "max_steps": 12, "lr": 1e-5}
    cpu, gpu = (lines(tune(TuneConfig(**{**settings, "device": d}), tmp_path / d)) for d in ("cpu", "cuda"))
    for a, b in zip(cpu, gpu, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-2)
