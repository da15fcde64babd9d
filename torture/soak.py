"""Builds in a loop, in one process and as commands: nothing may grow, nothing may be left."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torture import processes, watching
from torture.hub import pictures, write_parquet
from torture.trial import Effort, Trial

LOOP = """
import json, os, sys, time
from dataclasses import astuple
from pathlib import Path
from rich.console import Console
from curate.build import build
from curate.config import BuildConfig
from torture.watching import sample
root, seconds, least = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
values = json.loads(sys.argv[4])
started, number = time.monotonic(), 0
while number < least or time.monotonic() - started < seconds:
    settings = {**values, "source": tuple(values["source"]), "out": root / "sets" / "mini.h5", "seed": number}
    build(BuildConfig(**settings, overwrite=True), Console(quiet=True))
    number += 1
    print(json.dumps(astuple(sample(os.getpid(), number))), flush=True)
"""


def write_corpus(folder: Path, rows: int, seed: int) -> dict[str, Any]:
    """An ID set and a corpus; the settings of a build of them."""
    ident, corpus = pictures(80, seed + 1), pictures(rows, seed + 2)
    for name, part in (("train", ident[:60]), ("test", ident[60:])):
        write_parquet(folder / "id" / f"{name}.parquet", list(part), [i % 2 for i in range(len(part))], ["a", "b"])
    write_parquet(folder / "corpus.parquet", list(corpus), [i % 3 for i in range(rows)], ["c", "d", "e"])
    return {
        "source": [str(folder / "corpus.parquet")],
        "id": str(folder / "id"),
        "size": rows * 3 // 4,
        "calibration_images": 20,
        "batch_rows": 64,
        "workers": 2,
    }


def trials(effort: Effort) -> Iterator[Trial]:
    """Builds in a loop for a quarter of the time: in one process, then as commands."""
    folder, temporary = effort.folder / "soak", effort.folder / "soak-temporary"
    folder.mkdir()
    temporary.mkdir()
    values = write_corpus(folder, effort.times(600, 60), effort.seed)
    seconds = -1.0 if effort.quick else 60 * effort.minutes / 8
    environment = {"TMPDIR": str(temporary)}
    words = [sys.executable, "-c", LOOP, str(folder), str(seconds), str(effort.times(20, 4)), json.dumps(values)]
    process = processes.start(words, folder, environment)
    ended = processes.finish(process, seconds + 600)
    fault = "`curate build` in a loop in one process"
    if ended.code != 0:
        yield Trial(fault, "ended early", False, ended.err[-500:])
    else:
        samples = [watching.Sample(*json.loads(line)) for line in ended.out.splitlines()]
        found = watching.course(samples)
        problems = [*found.problems, *leftovers(folder, temporary, process.pid)]
        outcome = "memory, open files, threads and processes flat, nothing left" if not problems else "something grew"
        note = f"{len(samples):,} builds: {found.words()}"
        yield Trial(fault, outcome, not problems, "; ".join(problems), "" if effort.quick else note)
    started, number = time.monotonic(), 0
    while number < effort.times(1, 0) or time.monotonic() - started < seconds:
        yield one_command(folder, temporary, values, number)
        number += 1


def one_command(folder: Path, temporary: Path, values: dict[str, Any], seed: int) -> Trial:
    """One `curate build` as a command, and what it leaves."""
    words = ["build", "--source", values["source"][0], "--id", values["id"], "--size", values["size"], "--seed", seed]
    words += ["--out", folder / "sets" / "mini.h5", "--overwrite", "--workers", 2]
    process = processes.start(processes.command("curate", *words), folder, {"TMPDIR": str(temporary)})
    ended = processes.finish(process, 300)
    problems = leftovers(folder, temporary, process.pid)
    if ended.code != 0 or ended.hung:
        problems.append(f"exit code {ended.code}: {ended.err[-300:]}")
    outcome = "no file and no process left" if not problems else "something left"
    return Trial("`curate build` in a loop, as commands", outcome, not problems, "; ".join(problems))


def leftovers(folder: Path, temporary: Path, group: int) -> list[str]:
    """What a build left besides its set: temporary files, a workspace, processes."""
    found = [f"{path.name} left in the temporary folder" for path in temporary.iterdir()]
    names = {path.name for path in (folder / "sets").iterdir()}
    expected = {"mini.h5", "mini-evidence.h5", "mini-00000-of-00001.h5"}
    found += [f"{name} left beside the set" for name in sorted(names - expected)]
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return found
    return [*found, "a process left"]
