"""Mutated outlier sets: opened and read, they give the rows that were written or a clear error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from srood import outliers
from srood.errors import InputError
from torture.forked import forked
from torture.hostile import bounds
from torture.set_files import copy_set, document, make_set, rewrite_manifest
from torture.trial import Effort, Trial

BATCH = 25  # mutations a process


def mutated_sets(effort: Effort) -> Iterator[Trial]:
    """Bytes of manifests and shards, and fields of manifests, changed at random."""
    original = make_set(effort.folder / "original", effort.seed)
    for first in range(0, effort.times(2_000, 100), BATCH):
        seeds = range(effort.seed * 1_000_000 + first, effort.seed * 1_000_000 + first + BATCH)
        folder = effort.folder / f"mutated-{first}"
        folder.mkdir()
        words = ["python", "torture.fuzz_sets", original, seeds.start, seeds.stop]
        watched = forked(effort.quick).run(*words, cwd=folder, limit=300)
        lines = watched.ended.out.splitlines()
        for line in lines:
            seed, fault, outcome, passed = json.loads(line)
            yield Trial(fault, outcome, passed, f"seed {seed}: {outcome}")
        if problems := bounds(watched) or ["stopped"] * (len(lines) < BATCH):
            detail = f"after {len(lines)} of seeds {seeds}: {watched.ended.err[-400:]}"
            yield Trial("a process that reads mutated sets", "; ".join(problems), False, detail)


def main() -> None:
    """Mutate and read one set after another; a line of JSON for each, so that a crash is known to be of the next."""
    original = Path(sys.argv[1])
    rows = {name: outliers.OutlierSet.open(original).read(name) for name in ("image", "key", "label", "sha256")}
    for seed in range(int(sys.argv[2]), int(sys.argv[3])):
        rng = np.random.default_rng(seed)
        fault, change = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        path = copy_set(original, Path(f"set-{seed}"))
        change(path, rng)
        print(json.dumps([seed, fault, *_read(path, original, rows)]), flush=True)


def _read(path: Path, original: Path, rows: dict[str, np.ndarray]) -> tuple[str, bool]:
    """What comes of opening a set and reading it."""
    try:
        opened = outliers.OutlierSet.open(path)
        same = all(np.array_equal(opened.read(name), values) for name, values in rows.items())
        if not same or opened.manifest["label_names"] != document(original)["label_names"]:
            return "other rows without an error", False
    except InputError as error:
        return ("a clear error", True) if "\n" not in str(error) else ("an error of several lines", False)
    return "the rows that were written", True


# ---- mutations -----------------------------------------------------------------------------------------------------


def _one_of(path: Path, rng: np.random.Generator, manifest: bool) -> Path:
    return path if manifest else path.parent / document(path)["shards"][int(rng.integers(2))]["file"]


def _flip(file: Path, rng: np.random.Generator) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(int(rng.integers(1, 9))):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    file.write_bytes(data)


def _cut(file: Path, rng: np.random.Generator) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(rng.integers(len(data)))])


def _splice(file: Path, rng: np.random.Generator) -> None:
    """A block of the file over another, or in between."""
    data = file.read_bytes()
    size, source, place = (int(value) for value in rng.integers(1, len(data), 3))
    block = data[source : source + min(size, 4096)]
    file.write_bytes(data[:place] + block + data[place + len(block) * int(rng.integers(2)) :])


def _edit(path: Path, rng: np.random.Generator) -> None:
    """A value of the document, at any depth, replaced, removed or repeated; the checksum is as before, or none."""
    content = document(path)
    inner: Any = content
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        key = keys[int(rng.integers(len(keys)))]
        if not isinstance(inner[key], dict | list) or not inner[key] or rng.random() < 0.2:
            break
        inner = inner[key]
    values = (None, -1, 0, 2**70, 1.5, "", "../x", [], {}, True)
    if rng.random() < 0.3:
        del inner[key]
    else:
        inner[key] = values[int(rng.integers(len(values)))]
    text = json.dumps(content)
    digest = "".join(f"{value:02x}" for value in rng.integers(0, 256, 32))
    rewrite_manifest(path, text, checked=False)
    import h5py

    with h5py.File(path, "r+") as file:
        file["manifest_sha256"] = np.bytes_(digest)


def _of(kind: Callable[[Path, np.random.Generator], None], manifest: bool) -> Callable[..., None]:
    return lambda path, rng: kind(_one_of(path, rng, manifest), rng)


MUTATIONS: list[tuple[str, Callable[[Path, np.random.Generator], None]]] = [
    ("manifest: bits flipped", _of(_flip, True)),
    ("manifest: cut short", _of(_cut, True)),
    ("manifest: a block over another", _of(_splice, True)),
    ("manifest: a value edited", _edit),
    ("shard: bits flipped", _of(_flip, False)),
    ("shard: cut short", _of(_cut, False)),
    ("shard: a block over another", _of(_splice, False)),
]

if __name__ == "__main__":
    main()
