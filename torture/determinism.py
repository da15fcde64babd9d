"""The same set built in many ways, and the same run trained in several: the same bytes each time."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from torture import processes
from torture.hub import pictures
from torture.one_build import STOPPED
from torture.trial import Effort, Trial

Way = dict[str, Any]
MATRIX = (
    "a build with 1, 2 or 5 workers, in 0 to 3 ranks, with folders listed in other orders, killed and gone on with, "
    "and other hash seeds, threads, time zones, locales, umasks and working folders"
)
SAME = "same bytes"


def trials(effort: Effort) -> Iterator[Trial]:
    """Builds; in full also Ray, batches of other sizes, other Pythons, and training."""
    folder = effort.folder / "builds"
    settings = write_images(folder, effort.times(400, 60), effort.seed)
    chosen = ways(effort.times(44, 5), effort.seed)
    if effort.quick:
        yield from together(folder, settings, chosen)
        return
    first = build(folder, [settings | plain(folder, "plain")], {})
    expected = digests(folder / "plain")
    yield Trial("a build in the usual way", "done", first.code == 0, first.err[-500:])
    for number, way in enumerate(chosen):
        yield one_way(folder, settings, way, f"way-{number}", expected)
    yield from with_ray(folder, settings, expected)
    yield other_batches(folder, settings)

    from torture import pythons, training_twice

    yield from pythons.trials(folder, settings)
    yield from training_twice.trials(effort)


# ---- ways to build --------------------------------------------------------------------------------------------------


def factors() -> dict[str, list[Any]]:
    """What is varied. The first value of each is the usual one."""
    listed = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout.split()
    locales = [name for name in ("C", "C.utf8", "tr_TR.utf8", "de_DE.utf8") if name in listed]
    return {
        "workers": [1, 2, 5],
        "ranks": [0, 1, 2, 3],
        "stop_after": [0, 1, 3],
        "listing": [0, 1, 2],
        "PYTHONHASHSEED": ["0", "1", "4242", "random"],
        "OMP_NUM_THREADS": ["1", "2", "4"],
        "TZ": ["UTC", "NPT-5:45", "NST3:30"],
        "LC_ALL": locales or ["C"],
        "umask": [0o022, 0o077, 0o002],
        "cwd": [".", "elsewhere"],
    }


def ways(count: int, seed: int) -> list[Way]:
    """So many combinations, chosen greedily so that every two values of two factors soon meet."""
    values, rng = factors(), np.random.default_rng(seed)
    names = list(values)
    met: set[tuple[Any, ...]] = set()
    chosen = []
    for _ in range(count):
        drawn = [{name: of[rng.integers(len(of))] for name, of in values.items()} for _ in range(30)]
        pairs = [{(a, way[a], b, way[b]) for a, b in itertools.combinations(names, 2)} for way in drawn]
        best = max(range(len(drawn)), key=lambda number: len(pairs[number] - met))
        met |= pairs[best]
        chosen.append(drawn[best])
    return chosen


def write_images(folder: Path, rows: int, seed: int) -> dict[str, Any]:
    """An ID set and a corpus of files in folders of classes; the settings of a build of them."""
    images = iter(pictures(60 + rows, seed))
    for name, count, classes in (("id/train", 40, "ab"), ("id/test", 20, "ab"), ("corpus", rows, ["x", "ï", "I i"])):
        for number in range(count):
            path = folder / name / classes[number % len(classes)] / f"{number * 7919 % 1000}-{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(next(images)).save(path)
    (folder / "elsewhere").mkdir()
    return {
        "source": [str(folder / "corpus")],
        "id": str(folder / "id"),
        "size": rows * 2 // 3,
        "sample": "clusters",
        "clusters": 5,
        "calibration_images": 10,
        "batch_rows": 16,
        "shard_rows": 100,
    }


def plain(folder: Path, name: str) -> Way:
    """The usual way, into a folder of a name."""
    out = str(folder / name / "mini.h5")
    return {"out": out, "workers": 1, "ranks": 0, "stop_after": 0, "listing": 0, "engine": "local"}


def build(folder: Path, sets: list[Way], way: Way) -> processes.Ended:
    """Build sets one after the other in a process, in the surroundings of a way."""
    environment = {name: str(value) for name, value in way.items() if name.isupper()}
    words = [sys.executable, "-m", "torture.one_build", json.dumps(sets)]
    before = os.umask(way.get("umask", 0o022))
    try:
        process = processes.start(words, folder / way.get("cwd", "."), environment)
    finally:
        os.umask(before)
    return processes.finish(process, 300)


def of_build(way: Way) -> Way:
    """What of a way the builder itself is told."""
    return {name: way[name] for name in ("workers", "ranks", "stop_after", "listing")}


def one_way(folder: Path, settings: dict[str, Any], way: Way, name: str, expected: dict[str, str]) -> Trial:
    """A set built in one way."""
    values = settings | plain(folder, name) | of_build(way)
    ended = build(folder, [values], way)
    if way["stop_after"] and ended.code == STOPPED:
        ended = build(folder, [values | {"stop_after": 0}], way)
    return judged(MATRIX, ended, folder / name, expected, way)


def together(folder: Path, settings: dict[str, Any], chosen: list[Way]) -> Iterator[Trial]:
    """The usual way and others in two processes, which import once; the first is killed in the last of its sets."""
    sets = [
        settings | plain(folder, str(number)) | of_build(way) | {"stop_after": 0} for number, way in enumerate(chosen)
    ]
    half = len(sets) // 2
    killed = sets[-1] | {"ranks": 0, "stop_after": 2}
    surroundings = [chosen[0] | {"PYTHONHASHSEED": "1"}, chosen[-1] | {"PYTHONHASHSEED": "2"}]
    first = build(folder, [settings | plain(folder, "plain"), *sets[:half], killed], surroundings[0])
    ended = build(folder, [killed | {"stop_after": 0}, *sets[half:-1]], surroundings[1])
    yield Trial("a build in the usual way", "done", first.code == STOPPED, first.err[-500:])
    for number, way in enumerate(chosen):
        yield judged(MATRIX, ended, folder / str(number), digests(folder / "plain"), way)


def judged(fault: str, ended: processes.Ended, made: Path, expected: dict[str, str], way: Way) -> Trial:
    """Compare what was made with what was expected."""
    detail = json.dumps(way)
    if ended.code != 0:
        return Trial(fault, "ended with an error", False, f"{detail}: exit code {ended.code}: {ended.err[-500:]}")
    found = digests(made)
    differing = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    detail += f": {', '.join(differing)} differ" if differing else ""
    return Trial(fault, SAME if not differing else "other bytes", not differing, detail)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 (hex) of every file in a folder, but for the parts that ranks leave."""
    found = {path.name: path for path in folder.iterdir() if path.is_file()}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()}


def with_ray(folder: Path, settings: dict[str, Any], expected: dict[str, str]) -> Iterator[Trial]:
    """The engine that shares batches out among processes."""
    fault = "a build by Ray on 1 or 2 processors a worker"
    try:
        import ray  # noqa: F401
    except ImportError:
        yield Trial(fault, "Ray is not installed", True)
        return
    for workers in (1, 2):
        values = settings | plain(folder, f"ray-{workers}") | {"engine": "ray", "workers": workers}
        ended = build(folder, [values], {})
        yield judged(fault, ended, folder / f"ray-{workers}", expected, {"engine": "ray", "workers": workers})


def other_batches(folder: Path, settings: dict[str, Any]) -> Trial:
    """Batches of other sizes are recorded, so that the manifest differs; the rows do not."""
    fault, shards = "batches of 16, 50 or 1,024 rows of the corpus", []
    for size in (16, 50, 1024):
        values = settings | plain(folder, f"batches-{size}") | {"batch_rows": size}
        ended = build(folder, [values], {})
        if ended.code:
            return Trial(
                "batches of 32, 50 or 1,024 rows of the corpus", "ended with an error", False, ended.err[-500:]
            )
        made = digests(folder / f"batches-{size}")
        shards.append({name: digest for name, digest in made.items() if "-of-" in name})
    same = shards[0] == shards[1] == shards[2]
    outcome = "same bytes of all rows" if same else "other rows"
    return Trial(fault, outcome, same)
