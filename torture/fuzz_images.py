"""Mutated images: files of every format, spoiled at random, are decoded in a process that is watched.

python -m torture.fuzz_images SEED FIRST BATCHES    # one line of JSON a batch; what the area starts
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from srood import images
from torture import image_files, mutations, processes
from torture.trial import Effort, Trial

BATCH = 200  # images
SIZE = 16
LIMITS = images.Limits(pixels=1 << 20)  # so that a width that was changed does not cost a second
GROWTH = 32 << 20  # bytes that the process may grow by, from a fifth of its images on


def trials(effort: Effort) -> Iterator[Trial]:
    """Each mutated image is decoded twice, whole and reduced: an image or a documented reason, and no growth."""
    first, batches = 0, effort.times(100_000, 3_000) // BATCH
    while first < batches:
        lines, code = _decode_elsewhere(effort, first, batches)
        for line in lines:
            for kind, found in line["found"]:
                whole, reduced = found
                passed = all(reason in (None, *images.REASONS) for reason in found)
                passed = passed and (reduced is None) == (whole is None)
                outcome = "an image" if whole is None else f"counted as {whole}"
                detail = f"seed {effort.seed}, batch {line['batch']}: whole {whole}, reduced {reduced}"
                yield Trial(kind, outcome if passed else "an exception, or another reason", passed, detail)
        done = first + len(lines)
        if code or done < batches:
            detail = f"python -m torture.fuzz_images {effort.seed} {done} 1: exit code {code}"
            yield Trial("the process that decodes them", "crashed or hung", False, detail)
        elif first == 0:
            yield _growth(lines)
        first = done + 1 if done < batches else done


def _growth(lines: list[dict[str, Any]]) -> Trial:
    start, end = lines[len(lines) // 5]["resident"], lines[-1]["resident"]
    passed = end - start < GROWTH
    outcome = "no crash, no growth of memory" if passed else "it grows"
    return Trial("the process that decodes them", outcome, passed, f"{start:,} bytes, at the end {end:,}")


def _decode_elsewhere(effort: Effort, first: int, batches: int) -> tuple[list[dict[str, Any]], int]:
    words = [sys.executable, "-m", "torture.fuzz_images", str(effort.seed), str(first), str(batches)]
    process = subprocess.Popen(
        words,
        cwd=effort.folder,
        env=processes.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # of libtiff, which speaks of each fault
        text=True,
        start_new_session=True,
    )
    timer = threading.Timer(effort.times(1200, 120), processes.kill, [process])
    timer.start()
    try:
        assert process.stdout is not None
        lines = [json.loads(line) for line in process.stdout]
        return lines, process.wait()
    finally:
        timer.cancel()


def _decode(seed: int, first: int, batches: int) -> None:
    files = image_files.varied()
    for batch in range(first, batches):
        rng = np.random.default_rng([seed, batch])
        kinds = [mutations.KINDS[number] for number in rng.integers(len(mutations.KINDS), size=BATCH)]
        spoiled = [mutations.mutate(files, kind, rng) for kind in kinds]
        whole, reduced = (images.decode_batch(spoiled, SIZE, reduced=way, limits=LIMITS)[1] for way in (False, True))
        found = list(zip(kinds, zip(whole, reduced, strict=True), strict=True))
        print(json.dumps({"batch": batch, "resident": _resident(), "found": found}), flush=True)


def _resident() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0  # not Linux: crashes are seen there, growth is not


if __name__ == "__main__":
    _decode(*map(int, sys.argv[1:]))
