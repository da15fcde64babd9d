"""An hour of training on a large outlier set: nothing may grow, nothing may be left."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from srood.outliers import write_set
from torture import processes, watching
from torture.hub import digits_images
from torture.trial import Effort, Trial
from train.checkpoints import newest_step

ROWS, SHARD_ROWS = 300_000, 10_000
SMALL_MEMORY = "100MB"  # of the 0.92 GB that 300,000 rows of 32 pixels have


def write_large(folder: Path, rows: int, seed: int, size: int = 32) -> Path:
    """An outlier set of noise with so many rows, made shard by shard."""
    rng = np.random.default_rng(seed)
    counts = [min(SHARD_ROWS, rows - start) for start in range(0, rows, SHARD_ROWS)]
    shards = (digits_images().noise_columns(rng.integers(0, 256, (count, size, size, 3), np.uint8)) for count in counts)
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    return write_set(folder / "large.h5", shards, len(counts), {"config": {"image_size": size}}, scratch)


def trials(effort: Effort) -> Iterator[Trial]:
    """`srood train` with all outliers in memory and with few of them, both at once, watched until the time is over."""
    folder = effort.folder / "training"
    folder.mkdir()
    files = digits_images().write_training_files(folder, 200, (0.3,) * 3, (0.4,) * 3, size=32)
    large = write_large(folder / "large", ROWS, effort.seed)
    options = {"id": files["id"], "checkpoint": files["checkpoint"], "outliers": large, "model": "resnet20"}
    options |= {"device": "cpu", "precision": "32-true", "batch-size": 8, "outlier-batch-size": 16}
    options |= {"epochs": 1_000_000, "seed": effort.seed}
    words = [f"--{name}={value}" for name, value in options.items()]
    ways = {"in memory": "8GB", "read in blocks": SMALL_MEMORY}
    runs = {}
    for way, memory in ways.items():
        run = folder / way.replace(" ", "-")
        start = processes.command("srood", "train", *words, f"--outlier-memory={memory}", f"--out={run}")
        runs[way] = (run, processes.start(start, folder))
    seconds = 60 * effort.minutes
    try:
        for run, process in runs.values():  # begun, so that what is measured is training
            while process.poll() is None and not (run / "metrics.jsonl").is_file():
                time.sleep(0.05)
        watched = watch_all({way: process for way, (_, process) in runs.items()}, seconds)
        for way, (run, process) in runs.items():
            yield trained(way, run, process, watched[way])
    finally:
        for _, process in runs.values():
            processes.kill(process)


def watch_all(running: dict[str, Any], seconds: float) -> dict[str, list[watching.Sample]]:
    """Samples of several processes over the same time."""
    started = time.monotonic()
    samples: dict[str, list[watching.Sample]] = {name: [] for name in running}
    while (passed := time.monotonic() - started) < seconds:
        for name, process in running.items():
            if process.poll() is None and (found := watching.sample(process.pid, passed)) is not None:
                samples[name].append(found)
        time.sleep(min(1.0, seconds / 20))
    return samples


def trained(way: str, run: Path, process: Any, samples: list[watching.Sample]) -> Trial:
    """Stop a training run by SIGTERM, and say how it fared."""
    process.send_signal(signal.SIGTERM)
    ended = processes.finish(process, 120)
    left = watching.descendants(process.pid)
    fault = f"training on {ROWS:,} outliers {way}, watched each second, then stopped"
    if ended.code != 0 or ended.hung or left or not samples:
        return Trial(fault, "ended early or not at all", False, f"exit code {ended.code}: {ended.err[-500:]}")
    found = watching.course(samples)
    steps = newest_step(run)
    note = f"{samples[-1].time / 60:.0f} minutes, {steps:,} steps: {found.words()}"
    outcome = "memory, open files, threads and processes flat" if not found.problems else "something grew"
    return Trial(fault, outcome, not found.problems, "; ".join(found.problems), note)
