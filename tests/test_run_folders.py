"""Which folders a new run may take, and that one process at a time has it."""

from __future__ import annotations

import shutil

import pytest
import torch

from srood.errors import InputError
from srood.locks import locked
from srood.models.weights import WeightsInfo
from train import checkpoints, runs
from train.config import PretrainConfig
from train.summary import say_summary, summarise


def test_what_a_run_left_that_ended_before_its_first_checkpoint_is_taken_again(tmp_path):
    run, config = tmp_path / "run", PretrainConfig(id="x")
    (run / "checkpoints" / "partial-step-00000000").mkdir(parents=True)
    for name in (".lock", "run.json", "config.yaml.partial"):
        (run / name).touch()
    assert runs.choose_folder(config, run) == run
    (run / "checkpoints" / "step-00000000").mkdir()
    with pytest.raises(InputError, match="is not empty; choose another folder, or continue it with --resume"):
        runs.choose_folder(config, run)
    (run / "checkpoints" / "step-00000000").rmdir()
    (run / "notes.txt").touch()
    with pytest.raises(InputError, match="is not empty"):
        runs.choose_folder(config, run)


def test_one_process_at_a_time_and_one_run_after_the_other(tmp_path):
    run = tmp_path / "runs" / "run"
    with runs.new_run(run):
        with pytest.raises(InputError, match="is being written by process"), runs.new_run(run):
            pass
        with pytest.raises(InputError, match="is being written by process"), locked(run, within=True):
            pass
        (run / "model.safetensors").touch()
    with pytest.raises(InputError, match="is not empty"), runs.new_run(run):  # it was free when this one chose it
        pass
    assert [path.name for path in run.iterdir()] == ["model.safetensors"]


def test_older_checkpoints_go_and_what_is_not_ours_stays(tmp_path):
    weights, info, run = {"weight": torch.zeros(2)}, WeightsInfo("resnet20", image_size=32), tmp_path / "run"
    runs.create(run, PretrainConfig(id="x"), {}, weights, info)
    (run / "checkpoints" / "partial-step-00000001").mkdir()
    for name in (".DS_Store", "step-00000009~"):
        (run / "checkpoints" / name).touch()
    newest = checkpoints.save(run, 2, weights, info, {"step": 2})
    names = {path.name for path in newest.parent.iterdir()}
    assert names == {"step-00000002", ".DS_Store", "step-00000009~"} and checkpoints.newest(run) == newest


def test_a_finished_run_whose_log_is_gone_is_finished_all_the_same(tmp_path, capsys):
    with pytest.raises(InputError, match=r"metrics\.jsonl: is gone or empty"):
        summarise(tmp_path)
    say_summary(tmp_path)
    assert "note: " in capsys.readouterr().err


def test_a_run_that_was_removed_is_not_made_anew_without_its_settings(tmp_path):
    config, weights = PretrainConfig(id="x"), {"weight": torch.zeros(2)}
    info = WeightsInfo("resnet20", image_size=32)
    run = tmp_path / "run"
    runs.create(run, config, {}, weights, info)
    assert checkpoints.save(run, 3, weights, info, {"step": 3}).is_dir()
    shutil.rmtree(run)
    with pytest.raises(InputError, match="was removed while it was written; start the run again"):
        checkpoints.save(run, 6, weights, info, {"step": 6})
    assert not run.exists()
