"""Which folders a new run may take, and that one process at a time has it."""

from __future__ import annotations

import pytest

from srood.errors import InputError
from srood.locks import locked
from train import runs
from train.config import PretrainConfig


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
