"""A set made again from its manifest: plan (find and compare every input), build, compare.

What is planned is checked whole before any of it is built. A derived set is made from its parents, which are found as
they are recorded, or made again from the manifests that it carries.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from curate.build import build
from curate.config import check_workers
from curate.deriving.parents import check_leaves, shard_stems
from curate.deriving.redo import redo
from curate.outputs import check_beside, check_name
from curate.rebuilding.agreement import Agreement, Columns, columns_of_index, columns_of_set, compare
from curate.rebuilding.recorded_inputs import Recorded, find_inputs, other_versions
from curate.rebuilding.recorded_sets import Found, local_paths
from srood import outliers
from srood.errors import InputError
from srood.files import check_folder, sync_folder, writing
from srood.locks import locked
from srood.outlier_sources import is_remote, manifest_of, row_files
from srood.outliers import OutlierSet, read_manifest

MARKER = "made-by-curate-rebuild"  # in a folder of ours, so that no other is ever removed


@dataclass(frozen=True)
class Plan:
    """How a set is made again: it is `here` already, it is built from `recorded` inputs, or derived from `parents`."""

    name: str  # file name of the manifest
    manifest: Mapping[str, Any]
    here: Path | None = None
    recorded: Recorded | None = None
    parents: tuple[Plan, ...] = ()

    def found(self) -> list[Found]:
        """The inputs of this set and of those that it is made from."""
        own = list(self.recorded.found) if self.recorded else []
        if self.here:
            print_of = str(self.manifest["shards"][0]["sha256"]) if self.manifest["shards"] else ""
            own.append(Found("outlier set", self.name, "a local file", print_of, print_of))
        return own + [entry for parent in self.parents for entry in parent.found()]

    def sets(self) -> list[tuple[Path, Mapping[str, Any]]]:
        """The sets here that it is made from, and their manifests."""
        own = [(self.here, self.manifest)] if self.here else []
        return own + [entry for parent in self.parents for entry in parent.sets()]

    def problems(self) -> list[str]:
        """Why it cannot be made again as it was."""
        own = self.recorded.problems if self.recorded else []
        return own + [problem for parent in self.parents for problem in parent.problems()]


@dataclass(frozen=True)
class Rebuilt:
    """What came out: the set at `out`, None for a dry run, and how it compares with its manifest.

    `found` are the inputs, each beside its record; `problems` what differs (only a dry run returns any).
    """

    out: Path | None
    found: tuple[Found, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    agreement: Agreement | None = None


@dataclass(frozen=True)
class Settings:
    """What a plan is carried out with."""

    workers: int | None
    overwrite: bool
    console: Console | None
    notes: list[str]


def rebuild(
    spec: str,
    out: Path | None = None,
    *,
    embedder: str | None = None,
    look_in: Sequence[Path] = (),
    workers: int | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    console: Console | None = None,
) -> Rebuilt:
    """Make a set again from its manifest and compare the two.

    Args:
        spec: a manifest, whose shards need not be there, or ``hf://owner/name[@revision][/mini.h5]``.
        out: manifest to write. By default ``manifests/NAME``; of a manifest here that lacks shards, itself: then the
            shards are put beside it if they are the ones that it describes, and it is left as it is.
        embedder: ``checkpoint:PATH`` or ``onnx:PATH``: of weights a manifest holds only the fingerprint.
        look_in: folders that may hold the local files that the manifest names.
        overwrite: replace another set at `out`.
        dry_run: find and compare the inputs, and build nothing.

    Raises:
        InputError: the manifest cannot be read or does not say how the set was made, an input is missing or is not what
            was read (not in a dry run), `out` holds another set, or is one that is read.
    """
    check_workers(workers)
    path = manifest_of(spec)
    manifest = read_manifest(path)
    whole = is_remote(spec) or all((path.parent / entry["file"]).is_file() for entry in manifest["shards"])
    completed = not whole and (out is None or _same(out, path))
    target = path if completed else out or Path("manifests", path.name)
    if _same(target, path) and not completed:
        raise InputError(f"--out {target}: is the set itself, and whole; give another --out, to be compared with it")
    check_name(target)
    check_folder(target.parent, f"--out {target}: ")
    for folder in look_in:
        if not folder.is_dir():
            raise InputError(f"--look-in {folder}: there is no such folder; check the path")
    try:
        planned = plan(path.name, manifest, look_in, embedder)
    except InputError as error:
        raise InputError(f"{spec}: {error}") from error
    problems = list(dict.fromkeys(planned.problems()))  # parents may share an input
    other = other_versions(manifest)
    notes = [f"software versions differ: {', '.join(other)}"] if other else []
    found = tuple(dict.fromkeys(planned.found()))
    if dry_run:
        return Rebuilt(None, found, tuple(problems), tuple(notes))
    if problems:
        raise InputError(f"{spec}: cannot be made again from what is here: {'; '.join(problems)}")

    with locked(target.with_name(f"{target.name}.rebuilt"), "--out "):
        return _rebuilt(spec, path, manifest, planned, target, completed, Settings(workers, overwrite, console, notes))


def _rebuilt(
    spec: str,
    path: Path,
    manifest: Mapping[str, Any],
    planned: Plan,
    target: Path,
    completed: bool,
    settings: Settings,
) -> Rebuilt:
    notes = settings.notes
    read = planned.sets() + ([] if completed else [(path, manifest)])
    for other_path, other_manifest in read:
        check_leaves(target, shard_stems(manifest) if completed else {target.stem}, other_path, other_manifest)
    place = target
    if completed:
        place = _scratch(target.with_name(target.name + ".rebuilt")) / path.name
    with writing(place, "--out "):
        made = _make(planned, place, replace(settings, overwrite=settings.overwrite or completed))
    agreement = compare(manifest, made)
    if agreement.altered and not completed:
        agreement = compare(manifest, made, _rows_of(spec, path, int(manifest["rows"])))
    if completed and agreement.bytes_agree:
        _complete(path, manifest, made)
        made = path
    elif completed:
        notes.append(f"{path} is left as it is; what was made is {made}")
    found = tuple(dict.fromkeys(planned.found()))
    return Rebuilt(made, found, (), tuple(notes), agreement)


def _rows_of(spec: str, path: Path, rows: int) -> Columns | None:
    """The rows that the manifest describes, where they are at hand: its shards, or the index beside it on the Hub."""
    if is_remote(spec):
        return columns_of_index(row_files(spec), rows)
    try:
        return columns_of_set(OutlierSet.open(path))
    except InputError:  # damaged since; they only say more of a difference
        return None


def plan(name: str, manifest: Mapping[str, Any], look_in: Sequence[Path], embedder: str | None) -> Plan:
    """Find what a set is made from, and compare it with the records; nothing is built.

    Raises:
        InputError: the manifest does not say how the set was made.
    """
    derived = manifest.get("derived")
    if not derived:
        return Plan(name, manifest, recorded=find_inputs(manifest, look_in, embedder))
    needed = {"file", "fingerprint", "manifest"}
    if not derived.get("parents") or not all(needed <= entry.keys() for entry in derived["parents"]):
        raise InputError("the manifest does not say which sets it was made from; restore it")
    parents = []
    for entry in derived["parents"]:
        file = Path(entry["file"]).name
        here = _at_hand(file, entry["fingerprint"], look_in)
        if here:
            parents.append(Plan(file, entry["manifest"], here=here))
        else:
            parents.append(plan(file, entry["manifest"], look_in, embedder))
    return Plan(name, manifest, parents=tuple(parents))


def _at_hand(file: str, fingerprint: str, look_in: Sequence[Path]) -> Path | None:
    for path in local_paths(file, look_in):
        try:
            if OutlierSet.open(path).fingerprint == fingerprint:
                return path
        except InputError:  # an index, or another file of this name: the set is made again instead
            continue
    return None


def _make(planned: Plan, out: Path, settings: Settings) -> Path:
    if planned.here:
        return planned.here
    if planned.recorded:
        config = replace(planned.recorded.config, out=out, workers=settings.workers, overwrite=settings.overwrite)
        result = build(config, settings.console, planned.recorded.inputs)
        settings.notes.extend(note for note in result.notes if note not in settings.notes)
        return result.out
    return _derive(planned, out, settings)


def _derive(planned: Plan, out: Path, settings: Settings) -> Path:
    """Make the parents in a folder beside the output, and the set out of them."""
    if out.exists():
        if _is_that(out, planned.manifest):
            settings.notes.append(f"{out} already holds this set, verified")
            return out
        if not settings.overwrite:
            raise InputError(f"--out {out}: exists with other content; give --overwrite or another --out")
    elif not settings.overwrite and not (out.with_name(out.name + ".parents") / MARKER).is_file():  # else ours
        check_beside(out)
    scratch = _scratch(out.with_name(out.name + ".parents"))
    parents = []
    for number, parent in enumerate(planned.parents):  # in folders of their own: two may have one name
        made = _make(parent, scratch / str(number) / parent.name, replace(settings, overwrite=True))
        agreement = compare(parent.manifest, made)
        if not agreement.bytes_agree:
            settings.notes.append(f"its parent {parent.name}: {agreement.lines()[0]}")
        parents.append(made)
    place = scratch / "derived" / out.name
    place.parent.mkdir(parents=True, exist_ok=True)
    outliers.remove_set(place)  # what an interrupted run may have left
    made = redo(planned.manifest["derived"], parents, place)
    outliers.put_in_place(made, out, [entry["file"] for entry in _files(read_manifest(made))])
    shutil.rmtree(scratch, ignore_errors=True)
    return out


def _scratch(folder: Path) -> Path:
    """A folder for what is made on the way; one that an earlier run left is used again.

    Raises:
        InputError: something of this name is there that no run has made.
    """
    marker = folder / MARKER
    if os.path.lexists(folder) and not marker.is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(
            f"{folder}: is in the way and was not made by `curate rebuild`; move it, or name another --out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()
    return folder


def _files(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of the shards and, where there is any, the evidence."""
    return list(manifest["shards"]) + ([manifest["evidence"]] if manifest.get("evidence") else [])


def _is_that(path: Path, manifest: Mapping[str, Any]) -> bool:
    try:
        return not compare(manifest, path).altered and not outliers.verify(path)
    except InputError:
        return False


def _same(a: Path, b: Path) -> bool:
    return os.path.realpath(a) == os.path.realpath(b)


def _complete(path: Path, manifest: Mapping[str, Any], made: Path) -> None:
    """Put the shards that were made beside the manifest that describes them, and the evidence where it does too."""
    document = read_manifest(made)
    pairs = list(zip(document["shards"], manifest["shards"], strict=True))
    evidence = [of.get("evidence") or {} for of in (document, manifest)]
    if evidence[0] and evidence[0].get("sha256") == evidence[1].get("sha256"):
        pairs.append((evidence[0], evidence[1]))
    for here, recorded in pairs:
        os.replace(made.parent / here["file"], path.parent / recorded["file"])
    sync_folder(path.parent)
    shutil.rmtree(made.parent, ignore_errors=True)
