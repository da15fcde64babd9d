"""A build in parts: each rank measures its share of the batches, and the parts are joined to the set of one run.

A share is a range of consecutive batches, so that a rank skips to its place once and then reads its rows in order.
Whatever needs more than one batch is left to the join: it settles the batches of all parts in the order of the corpus,
as one run does, and goes on with the same stages.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from curate.build import build
from curate.config import BuildConfig, check
from curate.inputs import Inputs, resolve_inputs
from curate.outputs import BuildResult
from curate.record import versions
from curate.reference import Reference, prepare_reference
from curate.sources import batch_counts, batch_place
from curate.stream import measured_batches
from curate.workspace import DAMAGED, GO_ON, Workspace, read_arrays
from srood.errors import InputError
from srood.files import sync_folder, writing
from srood.locks import locked
from srood.progress import progress_bar

NOT_KEPT = ("out", "overwrite", "dry_run", "workers")  # options that belong to a run, not to the set
_NAME = re.compile(r".+\.part-(?P<rank>\d{5,})-of-(?P<ranks>\d{5,})(?P<unfinished>\.work)?")


@dataclass(frozen=True)
class PartResult:
    """What a rank came to: its folder, the numbers of its batches, how many rows they hold, and notes for people."""

    folder: Path
    batches: range
    rows: int
    notes: tuple[str, ...] = ()


def part_folder(out: Path, rank: int, ranks: int) -> Path:
    """Where a part of the set at `out` lies: ``mini.part-00002-of-00008`` beside it."""
    return out.with_name(f"{out.stem}.part-{rank:05d}-of-{ranks:05d}")


def is_part(path: str | Path) -> bool:
    """Whether this is a part of a build by its name, finished or not, rather than a set."""
    return bool(_NAME.fullmatch(Path(path).name))


def share(batches: int, rank: int, ranks: int) -> range:
    """The numbers of the batches of one rank, of 0 to `batches` - 1; the shares of all differ by one at the most."""
    return range(batches * rank // ranks, batches * (rank + 1) // ranks)


# ---- one rank -------------------------------------------------------------------------------------------------------


def build_part(config: BuildConfig, rank: int, ranks: int, console: Console | None = None) -> PartResult:
    """Measure the share of rank `rank` of `ranks`, counted from 0, and leave it in `part_folder`.

    Raises:
        InputError: no such rank, a dry run, an input cannot be found or used, there is another part in the place or
            another process at work on it, the disk is full, or an input is gone.
    """
    if ranks < 1 or not 0 <= rank < ranks:
        raise InputError(f"--rank {rank}: ranks of --world-size {ranks} run from 0 to {ranks - 1}")
    if config.dry_run:
        raise InputError("--dry-run: a part says nothing of the set; leave out --rank and --world-size, or --dry-run")
    check(config)
    inputs = resolve_inputs(config)
    mine = share(sum(batch_counts(inputs.corpus, config.batch_rows)), rank, ranks)
    folder = part_folder(config.out, rank, ranks)
    with locked(folder), writing(folder, advice=GO_ON):
        return _build_part(config, rank, ranks, console or Console(stderr=True), inputs, mine, folder)


def _build_part(
    config: BuildConfig, rank: int, ranks: int, console: Console, inputs: Inputs, mine: range, folder: Path
) -> PartResult:
    if _same_part(folder, inputs.recipe, rank, ranks):
        _verify(folder, mine, rank)
        return PartResult(folder, mine, _rows(inputs, mine, config), (f"{folder} already holds this part, verified",))
    if folder.exists() and not config.overwrite:
        raise InputError(f"{folder}: exists with other content; give --overwrite, remove it, or name another --out")
    work = Workspace(folder, inputs.recipe)
    notes = ("went on with the batches of an interrupted rank",) if work.resumed else ()

    reference = prepare_reference(config, inputs, work, console)
    done = _done(work, mine)
    with progress_bar("images", console) as progress:
        task = progress.add_task("corpus", total=_rows(inputs, mine, config), note=f"rank {rank} of {ranks}")
        progress.advance(task, _rows(inputs, range(mine.start, done), config))
        if done < mine.stop:
            start = batch_place(inputs.corpus, done, config.batch_rows)
            for number, batch in measured_batches(config, inputs, reference, *start, done, mine.stop - done):
                work.write(_file(number), batch)
                progress.advance(task, int(batch["next"][2]))

    options = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    part = {
        "rank": rank,
        "ranks": ranks,
        "batches": mine.stop - mine.start,
        "recipe": inputs.recipe,
        "recorded": config.recorded(),
        "options": {name: value for name, value in options.items() if name not in NOT_KEPT},
        "versions": versions(),
        "reference": _reference_sha256(work, reference),
    }
    work.write_json("part", json.loads(json.dumps(part, default=str)))
    _verify(work.folder, mine, rank)
    (folder / "part.json").unlink(missing_ok=True)  # first: without it a folder is no part
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(work.folder, folder)
    sync_folder(folder.parent)
    return PartResult(folder, mine, _rows(inputs, mine, config), notes)


def _verify(folder: Path, batches: range, rank: int) -> None:
    for name in ("id", *batches):
        _read(folder, name, rank)  # compares each file with its own checksums


def _file(number: int) -> str:
    return f"batch-{number:08d}"


def _rows(inputs: Inputs, batches: range, config: BuildConfig) -> int:
    """Rows in a range of batches."""
    rows = first = 0
    for source, count in zip(inputs.corpus.sources, batch_counts(inputs.corpus, config.batch_rows), strict=True):
        start, stop = (
            min(max(number - first, 0), count) * config.batch_rows for number in (batches.start, batches.stop)
        )
        rows += min(stop, source.num_rows()) - min(start, source.num_rows())
        first += count
    return rows


def _done(work: Workspace, mine: range) -> int:
    """The first batch of a share that is not there yet."""
    number = mine.start
    while number < mine.stop and work.read(_file(number)) is not None:
        number += 1
    return number


def _same_part(folder: Path, recipe: str, rank: int, ranks: int) -> bool:
    try:
        part = json.loads((folder / "part.json").read_text())
        return bool([part["recipe"], part["rank"], part["ranks"]] == [recipe, rank, ranks])
    except (OSError, ValueError, KeyError):
        return False


def _reference_sha256(work: Workspace, reference: Reference) -> str:
    """What the ID embeddings and the copy threshold came to: machines that compute alike agree on it."""
    digest = hashlib.sha256(json.dumps(reference.copies.to_dict(), sort_keys=True).encode())
    for name, values in sorted((work.read("id") or {}).items()):
        digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


# ---- the join -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parts:
    """All parts of one build; `described` and `folders` by rank."""

    folders: tuple[Path, ...]
    described: tuple[dict[str, Any], ...]

    def read(self, number: int) -> dict[str, np.ndarray] | None:
        """One batch as its rank measured it, or None after the last.

        Raises:
            InputError: its file is missing or damaged.
        """
        first = 0
        for rank, (folder, part) in enumerate(zip(self.folders, self.described, strict=True)):
            if number < (first := first + part["batches"]):
                return _read(folder, number, rank)
        return None

    def id_images(self) -> dict[str, np.ndarray]:
        """The ID sets as the ranks embedded them."""
        return _read(self.folders[0], "id", 0)


def join(folders: Sequence[Path], out: Path, overwrite: bool = False, console: Console | None = None) -> BuildResult:
    """Write the set of which these are all parts: the bytes that one run writes.

    Raises:
        InputError: a folder is no part, a part is missing, there twice or of another build, the inputs or the software
            are not those of the parts any more, or the output exists with other content.
    """
    parts = open_parts(folders)
    first = parts.described[0]
    if first["versions"] != versions():
        here = _differences(first["versions"], versions())
        raise InputError(f"{parts.folders[0]}: was made with other software ({here} here); join it where it was made")
    config = dataclasses.replace(_config(first["options"]), out=out, overwrite=overwrite)
    check(config)
    inputs = resolve_inputs(config)
    if inputs.recipe != first["recipe"]:
        raise InputError(
            f"{parts.folders[0]}: the images or files that its options name are others now; "
            "put them back and join in the folder where the ranks ran, or run the ranks again"
        )
    result = build(config, console, inputs, parts)
    unlike = [str(rank) for rank, part in enumerate(parts.described) if part["reference"] != first["reference"]]
    if unlike:
        note = (
            f"rank {', '.join(unlike)}: embeddings of the ID set are not bit for bit those of rank 0; on machines that "
            "compute otherwise similarities may differ in the last digits from those of one run"
        )
        return dataclasses.replace(result, notes=(*result.notes, note))
    return result


def open_parts(folders: Sequence[Path]) -> Parts:
    """The parts in these folders, in any order, checked to be all those of one build; batches are read later.

    Raises:
        InputError: a folder is no part, or a part is missing, there twice or of another build.
    """
    found: dict[int, tuple[Path, dict[str, Any]]] = {}
    for folder in folders:
        part = _described(folder)
        before, first = next(iter(found.values()), (folder, part))
        if part["ranks"] != first["ranks"]:
            raise InputError(f"{folder}: is of {part['ranks']} parts, {before} of {first['ranks']}; name those of one")
        if part["versions"] != first["versions"]:
            what = _differences(first["versions"], part["versions"])
            raise InputError(f"{folder}: was made with other software than {before} ({what}); run this rank again")
        if part["recipe"] != first["recipe"]:
            what = _differences(first["recorded"], part["recorded"]) or "other images or files"
            raise InputError(f"{folder}: is of another build than {before} ({what}); name the parts of one build")
        if part["rank"] in found:
            twice = found[part["rank"]][0]
            raise InputError(f"{folder}: is part {part['rank']}, and so is {twice}; name each part once")
        found[part["rank"]] = folder, part
    if not found:
        raise InputError("merge: name the parts of a build")
    folder, first = next(iter(found.values()))
    if missing := [rank for rank in range(first["ranks"]) if rank not in found]:
        names = ", ".join(map(str, missing))
        raise InputError(
            f"{folder}: of {first['ranks']} parts, rank {names} is missing; "
            f"run it with --rank {missing[0]} --world-size {first['ranks']}, or name its folder"
        )
    in_order = [found[rank] for rank in range(first["ranks"])]
    return Parts(tuple(folder for folder, _ in in_order), tuple(part for _, part in in_order))


def _described(folder: Path) -> dict[str, Any]:
    name = _NAME.fullmatch(folder.name)
    if name and name["unfinished"]:
        again = f"--rank {int(name['rank'])} --world-size {int(name['ranks'])}"
        raise InputError(f"{folder}: this rank is not done; run it again ({again})")
    if not (folder / "part.json").is_file():
        raise InputError(f"{folder}: is no part of a build; make one with curate build --rank R --world-size W")
    try:
        return dict(json.loads((folder / "part.json").read_text()))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: its part.json is damaged; remove the folder and run the rank again") from error


def _config(options: dict[str, Any]) -> BuildConfig:
    """The settings of a build from a part's JSON."""
    tuples = {name: tuple(options[name]) for name in ("source", "protect")}
    left_out = options["exclude_indices"]
    return BuildConfig(**{**options, **tuples, "exclude_indices": Path(left_out) if left_out else None})


def _differences(one: dict[str, Any], other: dict[str, Any]) -> str:
    names = [name for name in one if one[name] != other.get(name)]
    return ", ".join(f"{name} {one[name]} and {other.get(name)}" for name in names)


def _read(folder: Path, number: int | str, rank: int) -> dict[str, np.ndarray]:
    path = folder / f"{_file(number) if isinstance(number, int) else number}.npz"
    try:
        return read_arrays(path)
    except (OSError, *DAMAGED) as error:
        raise InputError(f"{path}: is missing or damaged; remove the folder and run rank {rank} again") from error
