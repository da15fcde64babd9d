"""Training on outlier sets that do not fit in memory: the rows of each step, resuming, held-out rows, the memory."""

from __future__ import annotations

import json
import weakref
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from digits_images import noise_columns, write_training_files

from srood import outlier_blocks
from srood.block_order import BlockOrder
from srood.commands import parse_bytes
from srood.datasets import load_images
from srood.errors import InputError
from srood.outliers import OutlierSet, write_set
from train import batches
from train.block_sets import BlockSet, choose_blocks, describe_reading, reading_sentence
from train.config import BlockSettings, TuneConfig, read_config
from train.id_sets import validation_split
from train.outlier_pools import OutlierPools
from train.plan import Plan
from train.steps import Stepper
from train.training_images import training_images
from train.tune import resume, tune

ROW = 16 * 16 * 3
SHARDS = (90, 90, 21)  # 201 rows, 154,368 bytes
ROWS = sum(SHARDS)
SMALL = {"model": "resnet20", "device": "cpu", "precision": "32-true", "batch_size": 16, "outlier_batch_size": 12}
MEMORY = {"outlier_memory": "60KB"}  # 39 rows in each of two windows, in blocks of 4


def write_rows(folder: Path, shards: tuple[int, ...], seed: int) -> Path:
    """A set whose pixels are unlike each other."""
    rng = np.random.default_rng(seed)
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    columns = (noise_columns(rng.integers(0, 256, (rows, 16, 16, 3), np.uint8)) for rows in shards)
    return write_set(folder / "mini.h5", columns, len(shards), {"config": {"image_size": 16}}, scratch)


def pixels(path: Path) -> np.ndarray:
    """All images, by h5py alone."""
    parts = []
    for file in sorted(path.parent.glob("mini-*.h5")):
        with h5py.File(file) as shard:
            parts.append(shard["image"][:])
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("files")
    written = write_training_files(folder, 60, (0.3, 0.3, 0.3), (0.4, 0.4, 0.4))
    return {**written, "outliers": str(write_rows(folder / "large", SHARDS, 1))}


@pytest.fixture(scope="module")
def little(tmp_path_factory) -> str:
    return str(write_rows(tmp_path_factory.mktemp("little"), (30,), 2))


def prepared(files, **settings):
    """Configuration, plan and images of a run, as `tune` makes them."""
    config = TuneConfig(**{**SMALL, **files, **MEMORY, **settings})
    sets = [OutlierSet.open(path.partition(":")[0]) for path in config.outliers]
    config = choose_blocks(config, sets)
    data = training_images(config, load_images(f"{files['id']}/train.parquet", 16), sets)
    return config, data.plan(config), data


def test_every_step_has_the_rows_of_the_order(files):
    config, plan, data = prepared(files)
    assert config.outlier_blocks == (BlockSettings(window_rows=39, block_rows=4, held_out_blocks=0),)
    stored = pixels(Path(files["outliers"]))
    order = BlockOrder(SHARDS, 4, 9, batches.derived_seed(0, batches.OUTLIER_ORDER, 0))
    pools = OutlierPools(data.outliers, torch.device("cpu"))
    seen = []
    for step in range(2 * ROWS // 12):
        rows = plan.rows(step)
        assert rows.outliers.tolist() == order.row_numbers(step, 12).tolist()
        assert np.array_equal(pools.images(rows, range(12)), stored[order.row_numbers(step, 12)])
        seen += rows.outliers.tolist()
    pools.close()
    assert sorted(seen[:ROWS]) == list(range(ROWS)) and seen[:ROWS] != sorted(seen[:ROWS])


def test_sets_held_and_read_share_a_step(files, little):
    memory = f"{30 * ROW / 1000 + 60}KB"  # the small one whole, the rest for the large one
    config, plan, data = prepared(files, outliers=(files["outliers"] + ":2", little), outlier_memory=memory)
    assert config.outlier_blocks == (BlockSettings(window_rows=39, block_rows=4, held_out_blocks=0), None)
    assert isinstance(data.outliers[0], BlockSet) and np.array_equal(data.outliers[1], pixels(Path(little)))
    stored = np.concatenate([pixels(Path(files["outliers"])), pixels(Path(little))])
    pools = OutlierPools(data.outliers, torch.device("cpu"))
    for step in (0, 1, 5, 40):
        rows = plan.rows(step)
        assert int((rows.outliers < ROWS).sum()) == 8
        for own in (range(12), range(5), range(5, 12), range(3, 3), range(7, 8)):  # of parts and processes
            got = pools.images(rows, own)
            assert np.array_equal(got, stored[rows.outliers[own.start : own.stop].numpy()])
    pools.close()


def test_sets_that_fit_are_held_and_drawn_as_always(files):
    config, plan, data = prepared(files, outlier_memory=f"{ROWS * ROW / 1000}KB")
    assert config.outlier_blocks == () and plan.rows(0).spans == ()
    assert np.array_equal(data.outliers[0], pixels(Path(files["outliers"])))
    order = torch.cat([batches.permutation(ROWS, 0, batches.OUTLIER_ORDER, 0, 0, cycle) for cycle in (0, 1)])
    for step in range(20):
        assert torch.equal(plan.rows(step).outliers, order[12 * step : 12 * step + 12])
    less, *_ = prepared(files, outlier_memory=f"{(ROWS * ROW - 1) / 1000}KB")
    assert less.outlier_blocks != ()


def test_a_run_that_was_cut_off_goes_on_bit_for_bit(files, tmp_path, monkeypatch, capfd):
    settings = {**SMALL, **files, **MEMORY, "epochs": 3, "checkpoint_every": 1, "accumulate": 2, "validation": 0.1}
    whole = tune(TuneConfig(**settings), tmp_path / "whole")
    said = capfd.readouterr().err
    assert "201 rows read in shuffled blocks: 48 blocks of 4" in " ".join(said.split()), said
    take = Stepper.take

    def cut_off(self, step, rows, lr):
        if step == 7:
            raise RuntimeError("cut off")
        return take(self, step, rows, lr)

    monkeypatch.setattr(Stepper, "take", cut_off)
    with pytest.raises(RuntimeError, match="cut off"):
        tune(TuneConfig(**settings), tmp_path / "cut")
    monkeypatch.setattr(Stepper, "take", take)
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()] == ["step-00000007"]
    path = tmp_path / "cut" / "config.yaml"
    values = yaml.safe_load(path.read_text())
    # a tenth of 52 blocks would be 5, more than a quarter of the memory holds: 4; the rest is for two windows
    assert values["outlier_blocks"] == [{"window_rows": 31, "block_rows": 4, "held_out_blocks": 4}]
    path.write_text(yaml.safe_dump({**values, "outlier_memory": "1GB"}))  # a machine with more
    resume(tmp_path / "cut")
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    losses = []
    for run in (whole, tmp_path / "cut"):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses.append([line["validation_loss"] for line in lines])
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_no_more_rows_are_held_than_the_memory_has(files, tmp_path, monkeypatch):
    held, peak = [0], [0]
    original = outlier_blocks.read_blocks

    def counted(opened, blocks):
        rows = int(blocks[:, 2].sum())
        held[0] += rows
        peak[0] = max(peak[0], held[0])
        found = original(opened, blocks)
        weakref.finalize(found, lambda: held.__setitem__(0, held[0] - rows))
        return found

    def refused(self, rows=None):
        raise AssertionError("the whole set is read")

    monkeypatch.setattr(outlier_blocks, "read_blocks", counted)
    monkeypatch.setattr(OutlierSet, "read_images", refused)
    tune(TuneConfig(**{**SMALL, **files, **MEMORY, "epochs": 5}), tmp_path / "run")
    assert 39 < peak[0] <= 60_000 // ROW
    assert held[0] == 0  # the readers are closed with the run


def test_held_out_rows_are_never_drawn(files):
    stored = pixels(Path(files["outliers"]))
    found = []
    for seed in (0, 0, 1):
        _, plan, data = prepared(files, validation=0.05, seed=seed)
        images = data.held_out_outliers[0].numpy()
        spared = [next(row for row in range(ROWS) if np.array_equal(stored[row], image)) for image in images]
        drawn = torch.cat([plan.rows(step).outliers for step in range(40)]).tolist()
        shard = np.searchsorted(np.cumsum(SHARDS), spared, side="right")
        block = [(part, (row - 90 * part) // 4) for row, part in zip(spared, shard, strict=True)]
        assert len(set(block)) == 3 and len(spared) == len(set(spared))  # a twentieth of 52 blocks
        assert len(spared) == sum(min(4, SHARDS[part] - 4 * number) for part, number in set(block))  # whole ones
        assert set(spared) | set(drawn) == set(range(ROWS)) and not set(spared) & set(drawn)
        assert sorted(drawn[: ROWS - len(spared)]) == sorted(set(drawn))
        found.append(spared)
    assert found[0] == found[1] != found[2]


def test_a_set_in_memory_is_divided_without_a_copy(files, monkeypatch):
    stored, read, held = pixels(Path(files["outliers"])), OutlierSet.read_images, []
    monkeypatch.setattr(OutlierSet, "read_images", lambda self: held.append(read(self)) or held[-1])
    monkeypatch.setattr("train.training_images.MOVED_ROWS", 7)
    data = prepared(files, outlier_memory="1MB", validation=0.3)[2]
    kept, spared = validation_split(np.zeros(ROWS, np.int64), 0.3, 0)
    assert np.array_equal(data.outliers[0], stored[kept]) and np.array_equal(data.held_out_outliers[0], stored[spared])
    assert all(np.shares_memory(part.numpy(), held[0]) for part in (data.outliers[0], data.held_out_outliers[0]))


def test_stored_order_and_epochs_that_end_with_the_outliers(files, tmp_path):
    changes = {"outlier_order": "stored", "epoch_ends_with": "shorter", "batch_size": 3, "outlier_batch_size": 25}
    _, plan, data = prepared(files, **changes, epochs=2)
    assert plan.epoch_steps == 9 and plan.total == 18  # 8 * 25 + 1 rows; the ID images are 20 steps
    assert torch.cat([plan.rows(step).outliers for step in range(18)]).tolist() == [*range(ROWS), *range(ROWS)]
    pools = OutlierPools(data.outliers, torch.device("cpu"))
    last = plan.rows(8)
    assert np.array_equal(pools.images(last, range(1)), pixels(Path(files["outliers"]))[200:])
    pools.close()
    _, shuffled, _ = prepared(files, **{**changes, "outlier_order": "shuffled"}, epochs=2)
    for epoch in (0, 1):
        rows = torch.cat([shuffled.rows(9 * epoch + step).outliers for step in range(9)]).tolist()
        assert sorted(rows) == list(range(ROWS)) and rows != list(range(ROWS))
    run = tune(TuneConfig(**{**SMALL, **files, **MEMORY, **changes}, epochs=1), tmp_path / "run")
    (entry,) = json.loads((run / "run.json").read_text())["outliers"]
    assert entry["read"] == "in stored order from disk" and "shuffle_quality" not in entry


@pytest.mark.slow
def test_two_processes_have_the_loss_of_one(files, tmp_path):
    losses = []
    for devices in (1, 2):
        config = TuneConfig(**{**SMALL, **files, **MEMORY, "devices": devices, "lr": 1e-5, "epochs": 1})
        run = tune(config, tmp_path / str(devices))
        losses.append([json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_what_a_run_says_of_its_reading(files):
    _, plan, data = prepared(files)
    entry = {"file": "mini.h5", "rows": ROWS} | describe_reading(data.outliers[0], plan.shares[0])
    quality = entry["shuffle_quality"]
    # 23 blocks of 4 and one of 2 in each of the shards of 90, six in that of 21; a window has nine at the most
    assert (entry["blocks"], entry["windows"], entry["held_out_rows"]) == (23 + 23 + 6, 6, 0)
    assert 5 < quality["blocks_per_batch"] < 9 < quality["full_blocks_per_batch"] <= 12
    assert f"rows of a step are of {quality['blocks_per_batch']:.1f} blocks" in reading_sentence(entry)
    assert reading_sentence({"file": "a.h5", "rows": 5} | describe_reading(None, 3)) == "a.h5: 5 rows held in memory"


def test_what_cannot_be_served_is_refused_before_training(files, little, tmp_path):
    def refused(match: str, **settings) -> None:
        with pytest.raises(InputError, match=match):
            tune(TuneConfig(**{**SMALL, **files, **MEMORY, **settings}), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    refused(r"--reselect energy:0-0.5: draws single rows of .*give 0.01GB, or make", reselect="energy:0-0.5")
    refused(r"--outlier-memory 10KB: is too little for two windows of .*give at least 1MB", outlier_memory="10KB")
    refused(r"--outlier-memory 8: write a number above zero with its unit", outlier_memory="8")
    refused(r"outlier_blocks: has 2 entries for 1 sets", outlier_blocks=(None, None))
    blocks = {"window_rows": 40, "block_rows": 10}
    refused(r"outlier_blocks: --reselect energy:0-0.5 needs", outlier_blocks=(blocks,), reselect="energy:0-0.5")
    every = ({**blocks, "held_out_blocks": 21},)  # of 9, 9 and 3
    refused(r"outlier_blocks: holds out 21 of the 21 blocks of .*mini.h5", outlier_blocks=every, validation=0.5)
    refused(r"--outlier-memory: there are no outliers", outliers=())
    assert [parse_bytes(text, "--outlier-memory") for text in ("8GB", "1.5MiB", "500 kb")] == [
        8 * 10**9,
        3 * 2**19,
        500_000,
    ]


def test_old_runs_go_on_in_memory(files, tmp_path):
    run = tune(TuneConfig(**{**SMALL, **files, "max_steps": 1}), tmp_path / "run")
    values = yaml.safe_load((run / "config.yaml").read_text())
    for name in ("outlier_memory", "outlier_blocks"):
        del values[name]
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    assert read_config(run).outlier_blocks == ()
    plan = Plan(read_config(run), 60, (ROWS,), (12,))
    assert plan.rows(0).spans == ()


@pytest.mark.parametrize("validation", [0.0, 0.1, 0.5])
def test_the_memory_that_is_asked_for_suffices(validation):
    manifest = {"rows": 60_000, "shards": [{"rows": 10_000}] * 6, "config": {"image_size": 32}}
    opened = OutlierSet(Path("mini.h5"), manifest, "")
    with pytest.raises(InputError, match="give at least ") as refused:
        choose_blocks(TuneConfig(outliers="mini.h5", outlier_memory="1MB", validation=validation), [opened])
    memory = str(refused.value).rsplit(" ", 1)[1]
    config = TuneConfig(outliers="mini.h5", outlier_memory=memory, validation=validation)
    (chosen,) = choose_blocks(config, [opened]).outlier_blocks
    assert chosen is not None and chosen.window_rows >= config.outlier_batch_size
    used = (2 * chosen.window_rows + chosen.held_out_blocks * chosen.block_rows) * 32 * 32 * 3
    assert used <= parse_bytes(memory, "--outlier-memory")


def test_a_shard_that_is_lost_ends_the_run_with_its_name(files, tmp_path, monkeypatch):
    large = write_rows(tmp_path / "large", SHARDS, 1)
    take = Stepper.take

    def losing(self, step, rows, lr):
        if step == 1:
            for shard in large.parent.glob("mini-*.h5"):
                shard.unlink()
        return take(self, step, rows, lr)

    monkeypatch.setattr(Stepper, "take", losing)
    settings = {**SMALL, **files, **MEMORY, "outliers": str(large), "epochs": 9, "checkpoint_every": 1}
    with pytest.raises(InputError, match=r"mini-0000\d-of-00003.h5: cannot be read"):
        tune(TuneConfig(**settings), tmp_path / "run")
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert int(saved.name.removeprefix("step-")) >= 2  # what was read is used


def test_blocks_of_a_run_that_were_edited_are_refused(files, tmp_path):
    run = tune(TuneConfig(**{**SMALL, **files, **MEMORY, "max_steps": 1}), tmp_path / "run")
    values = yaml.safe_load((run / "config.yaml").read_text())
    (run / "model.safetensors").unlink()
    (run / "config.yaml").write_text(yaml.safe_dump({**values, "outlier_blocks": values["outlier_blocks"] * 2}))
    with pytest.raises(InputError, match="outlier_blocks: has 2 entries for 1 sets"):
        resume(run)
    values["outlier_blocks"][0]["block_rows"] = 40
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match="config.yaml: setting outlier_blocks.*block_rows 40 must not be above"):
        read_config(run)
