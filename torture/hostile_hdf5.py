"""Hostile HDF5: outlier sets and image files that lead elsewhere, lie or expand, given to every command."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from torture.forked import forked
from torture.hostile import (
    REFUSED,
    Case,
    Outside,
    bounds,
    judged,
    pictures,
    read_cases,
    refusal,
    trespasses,
    write_id_set,
)
from torture.set_edits import bomb, leading_out, manifest_edits, shard_edits
from torture.set_files import copy_set, edit_shard, make_set
from torture.trial import Effort, Trial

COMMANDS = (
    *("curate verify mini.h5", "curate inspect mini.h5", "curate report mini.h5 --out report.html"),
    *("curate select mini.h5 --size 50 --out chosen.h5", "curate merge other/mini.h5 mini.h5 --out both.h5"),
    "curate export mini.h5 --format parquet --out exported",
    "curate publish mini.h5 a/b --rights-confirmed --license cc0-1.0 --dry-run published",
    "srood train --id id --model resnet20 --checkpoint resnet20.safetensors --outliers mini.h5 --out run --max-steps 1",
)
ONLY_WITH_SHARDS = ("manifest: another hash of a shard", "manifest: another size of a shard")
OF_MANIFEST = ("curate inspect mini.h5",)  # reads no shard


def hostile_hdf5(effort: Effort) -> Iterator[Trial]:
    """Files of images, then shards and manifests of outlier sets."""
    good = pictures(3, effort.seed)
    yield from read_cases(effort, list(_sources(good)), good)
    original = make_set(effort.folder / "original", effort.seed)
    commands = ("curate verify mini.h5",) if effort.quick else COMMANDS
    if not effort.quick:
        _write_what_commands_need(effort)
        yield from _as_it_was(effort, original)
    spoilt = [(f"shard: {fault}", partial(edit_shard, edit=edit)) for fault, edit in shard_edits(effort.quick).items()]
    spoilt += [(f"manifest: {fault}", edit) for fault, edit in manifest_edits(effort.quick)]
    if effort.quick:  # some faults, each in one way
        spoilt = list(dict(spoilt).items())[::4]
    for number, (fault, edit) in enumerate(spoilt):
        place = effort.folder / f"set-{number}"
        place.mkdir()
        outside = Outside.make(place / "outside")
        path = _given(effort, original, place / "given")
        edit(path)
        outside.state = outside.look()
        of_shard = fault.startswith("shard") or fault in ONLY_WITH_SHARDS
        asked = commands if of_shard or not effort.quick else OF_MANIFEST
        for words in asked:
            if of_shard and words in OF_MANIFEST:
                continue
            yield _refused(effort, fault, words, place, outside)


def _write_what_commands_need(effort: Effort) -> None:
    import torch

    from srood.models import build_model
    from srood.models.weights import WeightsInfo, save_weights

    make_set(effort.folder / "other", effort.seed + 2)
    write_id_set(effort.folder / "id", pictures(300, effort.seed + 1))
    torch.manual_seed(effort.seed)
    info = WeightsInfo("resnet20", None, (0.5,) * 3, (0.25,) * 3)
    save_weights(effort.folder / "resnet20.safetensors", build_model("resnet20", 2).state_dict(), info)


def _given(effort: Effort, original: Path, folder: Path) -> Path:
    """A copy of the set in a new folder, with what the commands read besides."""
    path = copy_set(original, folder)
    if not effort.quick:
        copy_set(effort.folder / "other" / original.name, folder / "other")
        shutil.copytree(effort.folder / "id", folder / "id")
        shutil.copy(effort.folder / "resnet20.safetensors", folder)
    return path


def _as_it_was(effort: Effort, original: Path) -> Iterator[Trial]:
    """The commands on a set that nobody spoilt: what they refuse later is not refused for something else."""
    place = effort.folder / "as-it-was"
    place.mkdir()
    outside = Outside.make(place / "outside")
    _given(effort, original, place / "given")
    for words in COMMANDS:
        watched = forked(effort.quick).run(*words.split(), cwd=place / "given", limit=120)
        problems = bounds(watched) + trespasses(watched, place / "given", outside)
        if watched.ended.code:
            problems.append(f"exit code {watched.ended.code}: {watched.ended.err[-300:]}")
        yield judged("a set as it was made", problems, "done", words)


def _refused(effort: Effort, fault: str, words: str, place: Path, outside: Outside) -> Trial:
    """A command is to refuse a set; `curate verify` may also say what differs, with exit code 1."""
    given = place / "given"
    watched = forked(effort.quick).run(*words.split(), cwd=given, limit=120)
    problems = bounds(watched) + trespasses(watched, given, outside)
    outcome = REFUSED
    if words.startswith("curate verify") and watched.ended.code == 1 and "difference" in watched.ended.out:
        outcome = "`curate verify` names the difference, exit code 1"
    else:
        problems += refusal(watched, ["mini"])
    return judged(fault, problems, outcome, f"{words} in {given}")


# ---- files of images -----------------------------------------------------------------------------------------------


def _sources(good: list[np.ndarray]) -> Iterator[Case]:
    stack = np.stack(good)

    def file(fault: str, write: Callable[[h5py.File], object], rows: int | None = None) -> Case:
        def make(folder: Path) -> Path:
            with h5py.File(folder / "corpus.h5", "w") as opened:
                write(opened)
            return folder / "corpus.h5"

        return Case(f"HDF5 images: {fault}", make, rows)

    for fault, edit in leading_out().items():
        yield file(fault, edit)
    yield file("groups that hold each other", partial(_cycle, stack=stack), len(good))
    yield file("groups nested a thousand deep", partial(_deep, stack=stack), len(good))
    yield file("a gzip chunk that expands a thousandfold to 1 GiB", partial(bomb, rows=350_000))
    yield file(
        "2^60 rows that were never written",
        lambda f: f.create_dataset("image", (1 << 55, 32, 32, 3), "u1", chunks=(64, 32, 32, 3)),
    )
    yield file("a filter that only a plugin has", _plugin)
    for kind in ("float32", ">u2", "compound", "text", "reference"):
        yield file("another type than uint8", partial(_typed, kind=kind))
    yield file("an attribute of MiB", partial(_attribute, stack=stack), len(good))
    yield file(
        "images with no bytes a row", lambda f: f.create_dataset("image", data=np.zeros((5, 0, 32, 3), np.uint8))
    )
    yield file("nothing", lambda f: None)


def _cycle(file: h5py.File, stack: np.ndarray) -> None:
    file["image"] = stack
    group = file.create_group("a")
    group.create_group("b")["up"] = group
    file["a/root"] = file["/"]


def _deep(file: h5py.File, stack: np.ndarray) -> None:
    file["image"] = stack
    group = file
    for _ in range(1000):
        group = group.create_group("g")


def _plugin(file: h5py.File) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((1, 32, 32, 3))
    plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())  # Zstandard, of the plugins
    space = h5py.h5s.create_simple((3, 32, 32, 3))
    made = h5py.h5d.create(file.id, b"image", h5py.h5t.NATIVE_UINT8, space, plist)
    made.write_direct_chunk((0, 0, 0, 0), b"\0" * 100)


def _typed(file: h5py.File, kind: str) -> None:
    if kind == "compound":
        file["image"] = np.zeros((3, 32, 32, 3), [("a", "u1"), ("b", "f4")])
    elif kind == "text":
        file.create_dataset("image", (3, 32, 32, 3), h5py.string_dtype())[0, 0, 0, 0] = "x" * (1 << 20)
    elif kind == "reference":
        file.create_dataset("image", (3, 1, 1, 3), h5py.ref_dtype)[0, 0, 0, 0] = file.ref
        file.create_dataset("regions", (3,), h5py.regionref_dtype)
    else:
        file["image"] = np.zeros((3, 32, 32, 3), kind)


def _attribute(file: h5py.File, stack: np.ndarray) -> None:
    file["image"] = stack
    file.attrs.create("large", np.zeros(60_000, np.uint8))
    file["image"].attrs["text"] = "x" * 60_000
