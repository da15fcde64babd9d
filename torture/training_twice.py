"""The same training run in several surroundings, and killed and continued: the same weights, bit for bit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from torture import processes
from torture.hub import digits_images
from torture.training import write_large
from torture.trial import Effort, Trial

SURROUNDINGS = [
    {"PYTHONHASHSEED": "1", "TZ": "NPT-5:45"},
    {"PYTHONHASHSEED": "4242", "LC_ALL": "C"},
]
KILLED_AFTER = (3, 9)  # steps; a checkpoint each three


def trials(effort: Effort) -> Iterator[Trial]:
    """Runs with all outliers in memory, and with blocks of them."""
    folder = effort.folder / "twice"
    folder.mkdir()
    files = digits_images().write_training_files(folder, 60, (0.3,) * 3, (0.4,) * 3)
    files["outliers"] = write_large(folder / "large", 2_000, effort.seed, size=16)
    for way, memory in {"in memory": "8GB", "read in blocks": "1MB"}.items():
        values = {**files, "model": "resnet20", "device": "cpu", "precision": "32-true", "outlier-memory": memory}
        values |= {"batch-size": 8, "outlier-batch-size": 16, "max-steps": 12, "epochs": 2, "checkpoint-every": 3}
        words = [f"--{name}={value}" for name, value in values.items()]
        root = folder / way.replace(" ", "-")
        first = processes.run("srood", "train", *words, "--out", root / "first", cwd=folder)
        for number, environment in enumerate(SURROUNDINGS):
            run = root / f"again-{number}"
            ended = processes.run("srood", "train", *words, "--out", run, cwd=folder, env=environment)
            fault = f"training with outliers {way}, other hash seed, time zone or locale"
            yield judged(fault, first, ended, root / "first", run)
        for step in KILLED_AFTER:
            run = root / f"killed-{step}"
            kill_at(words, run, step, folder)
            ended = processes.run("srood", "train", "--resume", run, cwd=folder)
            yield judged(f"training with outliers {way}, killed and continued", first, ended, root / "first", run)


def kill_at(words: list[str], run: Path, step: int, folder: Path) -> None:
    """Kill a run as soon as it has a checkpoint of a step."""
    process = processes.start(processes.command("srood", "train", *words, "--out", run), folder)
    while process.poll() is None and not (run / "checkpoints" / f"step-{step:08d}").is_dir():
        time.sleep(0.01)
    processes.kill(process)
    processes.finish(process)


def judged(fault: str, first: processes.Ended, ended: processes.Ended, expected: Path, run: Path) -> Trial:
    """Compare the weights of two runs."""
    if first.code or ended.code:
        return Trial(fault, "ended with an error", False, (first.err + ended.err)[-500:])
    weights = [(path / "model.safetensors").read_bytes() for path in (expected, run)]
    same = weights[0] == weights[1]
    return Trial(fault, "same weights, bit for bit" if same else "other weights", same, str(run))
