"""Where an outlier set is read from: a manifest on this machine, or one on the Hugging Face Hub.

A set on the Hub is ``hf://owner/name[@revision][/mini.h5]``, a dataset repository with a manifest and its shards in one
folder; the manifest's folder may be left out where no other manifest has its name. Manifest and shards are downloaded
into the Hub's cache, where they lie beside each other, and are read there;
the evidence stays where it is. What was downloaded once is read again without a network.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from srood import hub
from srood.errors import InputError
from srood.outliers import is_manifest_name, read_manifest

_ADDRESS = re.compile(
    r"hf://(?P<repo>[^/@:]+/[^/@:]+)"
    r"(?:@(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+))?"  # the only names with a slash that the Hub itself makes
    r"(?:/(?P<name>.+\.h5))?"
)
_ROWS = re.compile(r"data/train-\d{5}-of-\d{5}\.parquet")


@dataclass(frozen=True)
class _Found:
    manifest: hub.HubFile
    listing: hub.Listing


def is_remote(spec: str) -> bool:
    """Whether a spec names an outlier set on the Hub."""
    return spec.startswith("hf://")


def pinned(spec: str) -> str:
    """The same set by an address that stays: ``hf://owner/name@COMMIT/mini.h5``; a path is returned as it is.

    Raises:
        InputError: as `local_manifest`, but for the shards, which are not looked at.
    """
    return str(_find(spec).manifest) if is_remote(spec) else spec


def manifest_of(spec: str) -> Path:
    """The path of a set's manifest alone; of a set on the Hub its shards, which need not be there, are not looked at.

    Raises:
        InputError: as `local_manifest`, but for the shards.
    """
    return _find(spec).manifest.fetch() if is_remote(spec) else Path(spec)


def local_manifest(spec: str) -> Path:
    """The path of a set's manifest, with its shards beside it; those of the Hub are downloaded where they are not yet.

    The sizes and hashes that the Hub states are compared with the manifest's before a shard is downloaded;
    `OutlierSet.open` checks the bytes.

    Args:
        spec: a path, which is returned as it is, or ``hf://owner/name[@revision][/mini.h5]``. The revision is a branch,
            a tag or a commit, by default ``main``; the name may be left out where the repository holds one set.

    Raises:
        InputError: no such repository, revision or set, several sets of which none is named, an index without images,
            a shard that is missing or not the manifest's, or the Hub cannot be reached and the set is not in the cache.
    """
    if not is_remote(spec):
        return Path(spec)
    found = _find(spec)
    path = found.manifest.fetch()
    folder = PurePosixPath(found.manifest.name).parent
    there = {file.name: file for file in found.listing.files}
    table = read_manifest(path)["shards"]  # names without a folder: read_manifest sees to it
    if len(table) and not any(str(folder / entry["file"]) in there for entry in table):
        again = f"make it again with `curate rebuild {spec}`"
        raise InputError(f"{found.manifest}: is an index: its images were not published; {again}")
    shards = []
    for entry in table:
        file = there.get(str(folder / entry["file"]))
        if file is None:
            raise InputError(f"{found.manifest}: the repository lacks its shard {entry['file']}; push the set again")
        if file.size != entry["bytes"] or file.sha256 not in (None, entry["sha256"]):
            raise InputError(f"{file}: is not the shard that {found.manifest.name} names; push the set again")
        shards.append(file)
    for file in shards:
        file.fetch()
    return path


def row_files(spec: str) -> tuple[hub.HubFile, ...]:
    """The Parquet files that a repository holds of a set's rows, with or without images; none for a path.

    Raises:
        InputError: as `manifest_of`.
    """
    if not is_remote(spec):
        return ()
    return tuple(file for file in _find(spec).listing.files if _ROWS.fullmatch(file.name))


def _find(spec: str) -> _Found:
    match = _ADDRESS.fullmatch(spec)
    if not match:
        raise InputError(f"{spec}: is not hf://owner/name[@revision][/mini.h5]")
    listing = hub.listing(match["repo"], match["revision"] or "main")
    address = f"hf://{listing.repo}@{listing.commit}"
    manifests = [file for file in listing.files if is_manifest_name(file.name)]
    chosen = _named(match["name"], listing.files, manifests) if match["name"] else manifests
    known = ", ".join(file.name for file in manifests[:6]) + (", ..." if len(manifests) > 6 else "")
    if not chosen:
        what = f"no {match['name']}" if match["name"] else "no manifest of an outlier set"
        raise InputError(f"{address}: holds {what}" + (f"; it has {known}" if known else " (a .h5 file)"))
    if len(chosen) > 1:
        raise InputError(f"{address}: holds several outlier sets ({known}); name one, as in {chosen[0]}")
    return _Found(chosen[0], listing)


def _named(name: str, files: Sequence[hub.HubFile], manifests: Sequence[hub.HubFile]) -> list[hub.HubFile]:
    """The file of this path; else the manifests of this name in any folder."""
    exact = [file for file in files if file.name == name]
    return exact or [file for file in manifests if PurePosixPath(file.name).name == name]
