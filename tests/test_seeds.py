"""Several seeds as one: the folder, each run, and going on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from digits_images import write_digits
from safetensors.torch import load_file

from srood.errors import InputError
from train.config import PretrainConfig, TuneConfig, read_config
from train.pretrain import pretrain
from train.seeds import continue_seeds, is_group, run_seeds
from train.tune import tune

SMALL = {
    "model": "resnet20",
    "image_size": 16,
    "batch_size": 16,
    "max_steps": 2,
    "device": "cpu",
    "precision": "32-true",
}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_digits(Path("digits"), train=32)
    return tmp_path


def test_each_seed_is_the_run_it_would_be_alone(here):
    config = PretrainConfig(id="digits", seed=5, **SMALL)
    group = run_seeds(config, 2)
    assert group == Path("runs/digits-resnet20-pretrain-seeds-5-6")
    assert json.loads((group / "seeds.json").read_text())["runs"] == ["seed-5", "seed-6"]
    alone = pretrain(PretrainConfig(id="digits", seed=6, **SMALL), Path("alone"))
    assert (group / "seed-6/model.safetensors").read_bytes() == (alone / "model.safetensors").read_bytes()
    assert (group / "seed-5/model.safetensors").read_bytes() != (alone / "model.safetensors").read_bytes()
    assert run_seeds(config, 2).name == "digits-resnet20-pretrain-seeds-5-6-2"  # the first is finished


def test_tuning_with_several_seeds_starts_from_one_pretrained_run(here):
    group = run_seeds(TuneConfig(id="digits", **SMALL), 2)
    starts = {read_config(group / f"seed-{seed}").checkpoint for seed in (0, 1)}  # type: ignore[union-attr]
    assert starts == {Path("runs/digits-resnet20-pretrain-s0/model.safetensors")}
    tuned = [load_file(group / f"seed-{seed}/model.safetensors")["conv1.weight"] for seed in (0, 1)]
    assert not tuned[0].equal(tuned[1])


def test_tuning_starts_from_the_pretrained_run_of_its_seed_where_there_are_several(here):
    pretrained = run_seeds(PretrainConfig(id="digits", **SMALL), 2)
    for seed in (1, 0, 2):  # of seed 2 there is none: the newest
        run = tune(TuneConfig(id="digits", seed=seed, **SMALL), Path(f"tuned-{seed}"))
        assert read_config(run).checkpoint == pretrained / f"seed-{min(seed, 1)}" / "model.safetensors"


def test_seeds_that_cannot_be_are_found_before_the_first_trains(here):
    with pytest.raises(InputError, match="--seed 9223372036854775808: "):
        run_seeds(PretrainConfig(id="digits", **{**SMALL, "seed": 2**63 - 1}), 2, Path("group"))
    assert not Path("group").exists()


def test_a_group_goes_on_where_it_was_left(here):
    group = run_seeds(PretrainConfig(id="digits", **SMALL), 2)
    expected = (group / "seed-1/model.safetensors").read_bytes()
    finished = (group / "seed-0/model.safetensors").stat().st_mtime_ns
    (group / "seed-1/model.safetensors").unlink()
    with pytest.raises(InputError, match=r"seeds-0-1: holds a run that is not finished.*--resume"):
        run_seeds(PretrainConfig(id="digits", **SMALL), 2)
    assert continue_seeds(group) == group
    assert (group / "seed-1/model.safetensors").read_bytes() == expected
    assert (group / "seed-0/model.safetensors").stat().st_mtime_ns == finished
    (group / "seeds.json").write_text("{")
    assert is_group(group)
    with pytest.raises(InputError, match=r"seeds\.json: cannot be read"):
        continue_seeds(group)


def test_a_group_that_cannot_start_leaves_nothing(here):
    with pytest.raises(InputError, match="neither a named set"):
        run_seeds(PretrainConfig(id="nothing", **SMALL), 2, Path("group"))
    assert not Path("group").exists()
