"""An outlier set from the Hub as files of one's own: downloaded, verified, and put into a folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from srood.errors import InputError
from srood.files import check_folder, scratch_beside, writing
from srood.locks import locked
from srood.outlier_sources import is_remote, local_manifest, pinned
from srood.outliers import OutlierSet, check_shard_names, files_beside, put_in_place, verify


@dataclass(frozen=True)
class Pulled:
    """Where the set is now, the commit it is from (``hf://owner/name@COMMIT/mini.h5``), and whether it is new there."""

    path: Path
    address: str
    rows: int
    changed: bool


def pull(repo: str, out: Path, *, revision: str | None = None, overwrite: bool = False) -> Pulled:
    """Copy a set of the Hub into a folder; every shard and row is hashed before it appears there.

    Args:
        repo: ``owner/name``, or ``hf://owner/name[@revision][/mini.h5]``
        out: folder, made where there is none; the files keep their names
        revision: branch, tag or commit; by default ``main``
        overwrite: replace another set of the same name

    Raises:
        InputError: as `srood.outlier_sources.local_manifest`; a set that does not verify; another set is in the place,
            or another process writes it; the disk is full.
    """
    address = pinned(_address(repo, revision))
    check_folder(out, "--out ")
    cached = local_manifest(address)
    if problems := verify(cached):
        raise InputError(f"{address}: does not verify: {problems[0]}; remove it from the Hub's cache and pull it again")
    found = OutlierSet.open(cached, check_hashes=False)
    check_shard_names(cached, found.manifest)  # and so no file of another set is replaced
    target = out / cached.name
    with locked(target, "--out "), writing(target, "--out "):
        return _put(found, cached, address, target, overwrite)


def _put(found: OutlierSet, cached: Path, address: str, target: Path, overwrite: bool) -> Pulled:
    if target.exists() and _is_same(target, found.fingerprint):
        return Pulled(target, address, found.num_rows, False)
    shards = [entry["file"] for entry in found.manifest["shards"]]
    there = [target] * target.exists() + files_beside(target)
    if there and not overwrite:
        raise InputError(f"--out {there[0]}: exists with other content; give --overwrite or another --out")
    with scratch_beside(target, "pull") as scratch:
        for name in [cached.name, *shards]:
            shutil.copyfile(cached.parent / name, scratch / name)
        if problems := verify(scratch / cached.name):
            raise InputError(f"{problems[0]} right after it was copied; check the disk")
        put_in_place(scratch / cached.name, target, shards)
    return Pulled(target, address, found.num_rows, True)


def _address(repo: str, revision: str | None) -> str:
    if not is_remote(repo):
        return f"hf://{repo}" + (f"@{revision}" if revision else "")
    if revision:
        raise InputError(f"--revision {revision}: {repo} names its own; write hf://owner/name@{revision}")
    return repo


def _is_same(path: Path, fingerprint: str) -> bool:
    try:
        return OutlierSet.open(path).fingerprint == fingerprint
    except InputError:
        return False
