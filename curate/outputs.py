"""Where a set is written: what may be there already, and what came out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.workspace import was_putting_in_place
from srood import outliers
from srood.errors import InputError


@dataclass(frozen=True)
class BuildResult:
    """What came out: `manifest` as written (or as it would be), `written` False for a dry run, notes for people."""

    out: Path
    manifest: dict[str, Any]
    written: bool
    notes: tuple[str, ...] = ()


def check_name(out: Path) -> None:
    """Check the name of an output, and touch nothing.

    Raises:
        InputError: it is no name of a manifest.
    """
    if out.suffix != ".h5":
        raise InputError(f"--out {out}: must end in .h5")
    if not outliers.is_manifest_name(out.name):
        raise InputError(f"--out {out}: is how a shard or the evidence of another set is named; choose another name")
    if out.is_dir():
        raise InputError(f"--out {out}: is a folder; name a file in it")


def check_out(out: Path) -> None:
    """Make the folder of the output where it is missing.

    Raises:
        InputError: the output cannot be written, or is no name of a manifest.
    """
    check_name(out)
    make_folder_of(out, "--out")


def make_folder_of(path: Path, option: str) -> None:
    """Make the folder of a file that is to be written, where it is missing.

    Raises:
        InputError: it cannot be made or written to; `option` is what the message begins with.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{option} {path}: its folder cannot be made ({error.strerror})") from error
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{option} {path}: its folder is not writable")


def existing(out: Path, recipe: str, overwrite: bool) -> dict[str, Any] | None:
    """The manifest at the output where it is the set of this recipe.

    Raises:
        InputError: another set is there, or files of one whose manifest is not, and `overwrite` is False.
    """
    if not out.exists():
        if not overwrite and not was_putting_in_place(out, recipe):
            check_beside(out)
        return None
    try:
        manifest = outliers.read_manifest(out)
        same = manifest.get("recipe") == recipe and not outliers.verify(out)
    except InputError:
        same = False
    if same:
        return manifest
    if overwrite:
        return None
    raise InputError(f"--out {out}: exists with other content; give --overwrite or another --out")


def check_beside(out: Path) -> None:
    """Check that a set would take no file's place: the manifest of another may have been renamed, or be elsewhere.

    Raises:
        InputError: there is a file of the name of its evidence or one of its shards.
    """
    if there := outliers.files_beside(out):
        why = f"{there[0]} is in the way, a file of another set"
        raise InputError(f"--out {out}: {why}; give --overwrite to replace it, or another --out")
