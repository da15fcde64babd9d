"""Batches read in shuffled blocks: every row once a pass, a function of seed and step, in bounded memory."""

import multiprocessing
import os
import pickle
import threading
import tracemalloc
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from digits_images import noise_columns

from srood import outliers
from srood.errors import InputError
from srood.outlier_blocks import BlockReader, default_block_rows
from srood.outliers import OutlierSet

SHARDS = (300, 300, 170)  # blocks of 64 rows: 5, 5 and 3, three of them short
ROWS = sum(SHARDS)


def write(folder: Path, sizes: tuple[int, ...] = SHARDS, size: int = 8) -> Path:
    """A set whose pixels are unlike each other."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / "scratch"
    scratch.mkdir()
    rng = np.random.default_rng(0)
    shards = (noise_columns(rng.integers(0, 256, (rows, size, size, 3), np.uint8)) for rows in sizes)
    return outliers.write_set(folder / "mini.h5", shards, len(sizes), {"config": {"image_size": size}}, scratch)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def stored(path) -> np.ndarray:
    """All images, by h5py alone."""
    parts = []
    for file in sorted(path.parent.glob("mini-*.h5")):
        with h5py.File(file) as shard:
            parts.append(shard["image"][:])
    return np.concatenate(parts)


def reader(path: Path, seed: int = 0, window_rows: int = 256) -> BlockReader:
    return BlockReader(OutlierSet.open(path), window_rows, seed, block_rows=64)


def row_of(images: np.ndarray, stored: np.ndarray) -> list[int]:
    """Where images stand in the set, by their bytes."""
    places = {image.tobytes(): row for row, image in enumerate(stored)}
    return [places[image.tobytes()] for image in images]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_every_row_once_a_pass_and_each_pass_anew(path, stored):
    with reader(path) as blocks:
        drawn = row_of(np.concatenate([blocks.rows(step, 70) for step in range(3 * 11)]), stored)
    passes = [drawn[start : start + ROWS] for start in range(0, 3 * ROWS, ROWS)]
    for rows in passes:
        assert sorted(rows) == list(range(ROWS))
    assert passes[0] != passes[1] != passes[2]


def test_batches_are_the_rows_that_the_order_names(path, stored):
    with reader(path) as blocks:
        for step in range(20):
            batch = blocks.rows(step, 96)  # some lie across windows and across passes
            assert (batch.shape, batch.dtype) == ((96, 8, 8, 3), np.uint8)
            assert np.array_equal(batch, stored[blocks.order.row_numbers(step, 96)])


def test_a_batch_may_be_larger_than_windows_and_the_set(path, stored):
    with reader(path) as blocks:
        large = blocks.rows(1, 2 * ROWS)
        assert np.bincount(row_of(large, stored)).tolist() == [2] * ROWS
        assert np.array_equal(large[:60], blocks.rows(15, 100)[40:])  # 2 * 770 = 1540 rows are before it
        assert np.array_equal(large, stored[blocks.order.row_numbers(1, 2 * ROWS)])


def test_a_step_has_the_same_rows_whenever_it_is_asked_for(path):
    with reader(path, seed=3) as blocks:
        whole = [blocks.rows(step, 64) for step in range(30)]
    for first in (7, 12, 29):
        with reader(path, seed=3) as resumed:
            for step in range(first, 30):
                assert np.array_equal(resumed.rows(step, 64), whole[step])
    with reader(path, seed=3) as blocks:
        for step in np.random.default_rng(0).permutation(30).tolist():
            assert np.array_equal(blocks.rows(step, 64), whole[step])
    with reader(path, seed=4) as other:
        assert not np.array_equal(other.rows(0, 64), whole[0])


def test_rows_of_a_window_are_of_its_blocks_alone(path, stored):
    with reader(path) as blocks:
        assert len(blocks.order.blocks) == 13 and blocks.order.windows == 4
        drawn = np.array(row_of(blocks.rows(0, ROWS), stored))
    # counted from the rows: block of each by hand, and in which windows of the pass it occurs
    shard = np.searchsorted(np.cumsum(SHARDS), drawn, side="right")
    block = shard * 5 + (drawn - np.array([0, 300, 600])[shard]) // 64
    ends = [0]
    for number in range(4):
        ends.append(ends[-1] + blocks.order.window(0, number).rows)
    parts = [set(block[a:b].tolist()) for a, b in pairwise(ends)]
    assert ends[-1] == ROWS and [len(part) for part in parts] == [3, 3, 3, 4]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 13
    assert max(np.diff(ends)) <= 256


@pytest.mark.parametrize("steps", [range(24), [0, 9, 3, 20, 1, 14, 7, 22]], ids=["in turn", "jumping"])
def test_two_windows_are_held_at_the_most(tmp_path, steps):
    opened = OutlierSet.open(write(tmp_path, (1024, 1024, 1024), size=16))
    window = 512 * 16 * 16 * 3
    with BlockReader(opened, 512, seed=0, block_rows=128) as blocks:
        blocks.rows(0, 128)
        tracemalloc.start()  # NumPy tells it of its arrays
        try:
            for step in steps:
                blocks.rows(step, 128)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert window < peak < 2 * window + 4 * 128 * 16 * 16 * 3, f"{peak / window:.2f} windows"


def test_the_next_window_is_read_before_it_is_asked_for(tmp_path, monkeypatch):
    read, started = [], threading.Event()
    original = BlockReader._read

    def recorded(self, window):
        read.append((window.key, threading.current_thread().name))
        if len(read) == 2:
            started.set()
        return original(self, window)

    monkeypatch.setattr(BlockReader, "_read", recorded)
    with reader(write(tmp_path)) as blocks:
        blocks.rows(0, 16)
        assert started.wait(10)
        blocks.rows(1, 16)
        assert [key for key, _ in read] == [(0, 0), (0, 1)]
        assert all(name.startswith("srood-blocks") for _, name in read)


def test_a_shard_that_is_gone_is_an_error_of_the_step_that_needs_it(tmp_path):
    path = write(tmp_path)
    with reader(path) as blocks:
        expected = [blocks.rows(step, 64) for step in range(12)]
    with reader(path) as blocks:
        blocks.rows(0, 64)
        shards = sorted(tmp_path.glob("mini-*.h5"))
        for shard in shards:
            shard.rename(shard.with_suffix(".away"))
        with pytest.raises(InputError, match=r"mini-0000\d-of-00003.h5: cannot be read"):
            for step in range(5, 12):
                blocks.rows(step, 64)
        for shard in shards:
            shard.with_suffix(".away").rename(shard)
        for step in range(12):  # the reader goes on
            assert np.array_equal(blocks.rows(step, 64), expected[step])


def test_damage_is_named(tmp_path):
    path = write(tmp_path, (100,))
    shard = tmp_path / "mini-00000-of-00001.h5"
    whole = shard.read_bytes()
    with BlockReader(OutlierSet.open(path), 100, 0, block_rows=50) as blocks:
        shard.write_bytes(whole[:9000])
        with pytest.raises(InputError, match="mini-00000-of-00001.h5: cannot be read"):
            blocks.rows(0, 10)
        shard.unlink()
        with h5py.File(shard, "w") as file:
            file["image"] = np.zeros((99, 8, 8, 3), np.uint8)
        with pytest.raises(InputError, match="its images are not those of the manifest"):
            blocks.rows(0, 10)


def test_nothing_is_left_open(path):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("counts open files in /proc")
    files, threads = open_files(), threading.active_count()
    with reader(path) as blocks:
        blocks.rows(0, 64)
        assert threading.active_count() == threads + 1
    assert (open_files(), threading.active_count()) == (files, threads)
    with pytest.raises(RuntimeError, match="shutdown"):
        blocks.rows(0, 64)


def test_sizes(path, tmp_path):
    opened = OutlierSet.open(path)
    for window_rows, block_rows in ((0, None), (64, 65), (64, 0)):
        with pytest.raises(ValueError, match="give 1 <= block_rows <= window_rows"):
            BlockReader(opened, window_rows, 0, block_rows)
    with BlockReader(opened, 100, 0) as blocks:
        assert blocks.order.block_rows == 100
    by_size = {8: 1024, 32: 1024, 64: 320, 112: 64, 224: 64}  # 4 MiB / (3 * size ** 2), in chunks of 64
    for size, rows in by_size.items():
        made = OutlierSet(path, {"config": {"image_size": size}}, "")
        assert default_block_rows(made) == rows
    empty = OutlierSet(path, {**opened.manifest, "rows": 0, "shards": []}, "")
    with pytest.raises(InputError, match="holds no rows"):
        BlockReader(empty, 100, 0)


def test_a_reader_goes_on_in_a_forked_process(path):
    """Threads do not survive a fork: what was read ahead there must not be waited for."""
    steps = (1, 7, 2)  # within the window, a window that was not read ahead, back again
    context = multiprocessing.get_context("fork")
    with reader(path) as opened, reader(path) as fresh:
        opened.rows(0, 60)
        results = context.SimpleQueue()
        child = context.Process(target=lambda: [results.put(opened.rows(step, 60)) for step in steps])
        child.start()
        child.join(60)
        if child.exitcode is None:
            child.kill()
            pytest.fail("the child waits for ever")
        assert child.exitcode == 0
        for step in steps:
            expected = fresh.rows(step, 60)
            assert np.array_equal(results.get(), expected)
            assert np.array_equal(opened.rows(step, 60), expected)


def test_a_reader_can_be_sent_to_a_process(path):
    """As multiprocessing does where it spawns."""
    with reader(path) as opened:
        before = opened.rows(0, 60)
        with pickle.loads(pickle.dumps(opened)) as sent:
            assert np.array_equal(sent.rows(0, 60), before)
            assert np.array_equal(sent.rows(7, 60), opened.rows(7, 60))
        assert np.array_equal(opened.rows(1, 60), opened.rows(1, 60))
