"""Loaders in forked and spawned processes, and processes of a run that are killed: no other rows, and no hang."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from srood.hashes import file_sha256
from torture import processes, watching
from torture.batches import Batches
from torture.hub import digits_images
from torture.soak import write_corpus
from torture.training import write_large
from torture.trial import Effort, Trial

HANGS = 120.0  # seconds after which a run that lost a process is said to hang
READ_IN_WORKERS = """
import sys
import numpy as np
from torch.utils.data import DataLoader
from torture.batches import Batches
if __name__ == "__main__":
    batches = Batches(sys.argv[1])
    batches[0]  # the reader is in use, its thread is reading ahead
    loader = DataLoader(batches, batch_size=None, num_workers=2, multiprocessing_context=sys.argv[2])
    np.save(sys.argv[3], np.stack([np.asarray(batch) for batch in loader]))
"""


def loaders(effort: Effort) -> Iterator[Trial]:
    """Batches read by two processes of PyTorch's loader, forked and spawned, beside those of this process."""
    path = write_large(effort.folder / "loaders", 1_000, effort.seed, size=16)
    here = Batches(str(path))
    expected = np.stack([here[step] for step in range(len(here))])
    here.reader.close()
    script = effort.folder / "loaders" / "script.py"
    script.write_text(READ_IN_WORKERS)
    for method in ("fork", "forkserver", "spawn"):
        result = effort.folder / "loaders" / f"{method}.npy"
        words = [sys.executable, script, path, method, result]
        ended = processes.finish(processes.start([str(word) for word in words], effort.folder), HANGS)
        fault = f"outliers read in two worker processes ({method})"
        if ended.code != 0:
            outcome = "hangs" if ended.hung else "ends with an error"
            yield Trial(fault, outcome, False, ended.err[-500:])
            continue
        same = np.array_equal(np.load(result), expected)
        yield Trial(fault, "the batches of one process" if same else "other batches", same)


def crashes(effort: Effort) -> Iterator[Trial]:
    """Processes of a run are killed, and files that it reads removed, each time at another moment."""
    folder = effort.folder / "crashes"
    folder.mkdir()
    files = digits_images().write_training_files(folder, 45, (0.3,) * 3, (0.4,) * 3)
    rng = np.random.default_rng(effort.seed)
    for number in range(4):
        yield rank_killed(folder, files, number % 2, float(rng.uniform(0, 2)), number)
    yield worker_of_ray_killed(folder, effort.seed)


def train_words(files: dict[str, object], run: Path, **options: object) -> list[str]:
    """A training run that would go on for long."""
    values: dict[str, object] = {**files, "model": "resnet20", "device": "cpu", "precision": "32-true", "out": run}
    values |= {"batch-size": 4, "outlier-batch-size": 4, "epochs": 10_000, **options}
    return processes.command("srood", "train", *(f"--{name}={value}" for name, value in values.items()))


def rank_killed(folder: Path, files: dict[str, object], rank: int, after: float, number: int) -> Trial:
    """One of two training processes is killed some seconds after the first steps."""
    run = folder / f"run-{number}"
    process = processes.start(train_words(files, run, devices=2), folder)
    found = wait_for(lambda: (run / "metrics.jsonl").is_file() and ranks(process.pid), process)
    time.sleep(after)
    return after_killing(f"one of two training processes is killed (rank {rank})", process, found, rank, str(run))


def ranks(pid: int) -> list[int]:
    """The training processes that a process spawned, in order."""
    return [child for child in watching.descendants(pid) if b"spawn_main" in command_line(child)]


def command_line(pid: int) -> bytes:
    """The words of a process's command, joined by zero bytes; none where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_for(condition: Callable[[], Any], process: Any, seconds: float = 120.0) -> Any:
    """What a condition gives once it holds, or nothing where the process ended or the time passed before."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    return None


def after_killing(fault: str, process: Any, found: list[int] | None, which: int, named: str) -> Trial:
    """Kill one of the processes that were found, and say how the run ended."""
    if not found:
        ended = (processes.kill(process), processes.finish(process))[1]
        return Trial(fault, "did not begin", False, ended.err[-500:])
    os.kill(found[which], signal.SIGKILL)
    ended = processes.finish(process, HANGS)
    detail = f"exit code {ended.code}: {ended.err[-500:]}"
    if ended.hung:
        return Trial(fault, "hangs", False, detail)
    good = ended.code == 2 and len(ended.errors) == 1 and named in ended.errors[0] and not ended.traceback
    left = [pid for pid in found if command_line(pid)]
    outcome = "one line, exit code 2" if good else "another end"
    return Trial(fault, outcome if not left else "processes left", good and not left, detail)


def worker_of_ray_killed(folder: Path, seed: int) -> Trial:
    """An actor of `curate build --engine ray` is killed; its work is done by another."""
    fault = "a worker of `curate build --engine ray` is killed"
    values = write_corpus(folder, 4_000, seed)
    words = ["build", "--source", values["source"][0], "--id", values["id"], "--size", 2_000, "--seed", seed]
    local = processes.run("curate", *words, "--out", folder / "local" / "mini.h5", cwd=folder)
    out = folder / "ray" / "mini.h5"
    process = processes.start(processes.command("curate", *words, "--out", out, "--engine", "ray"), folder)

    def actors() -> list[int]:
        below = watching.descendants(process.pid)
        # Ray's own helpers, such as ray::DashboardAgent, are there before; an idle one is ray::IDLE
        return [child for child in below if command_line(child).startswith(b"ray::Worker")]

    found = wait_for(actors, process)
    if local.code or not found:
        ended = (processes.kill(process), processes.finish(process))[1]
        missing = "needs Ray" in ended.err
        return Trial(fault, "not installed" if missing else "did not begin", missing, (local.err + ended.err)[-500:])
    os.kill(found[0], signal.SIGKILL)
    ended = processes.finish(process, 2 * HANGS)
    if ended.hung or ended.code:
        return Trial(fault, "hangs" if ended.hung else "ends", False, f"exit code {ended.code}: {ended.err[-500:]}")
    same = all(
        file_sha256(out.parent / path.name) == file_sha256(path)
        for path in (folder / "local").iterdir()
        if path.is_file()
    )
    return Trial(fault, "same bytes as an undisturbed build" if same else "other bytes", same)
