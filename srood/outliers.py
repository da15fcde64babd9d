"""The outlier set: an HDF5 manifest (`mini.h5`) and, beside it, HDF5 shards (`mini-00000-of-00005.h5`) of rows.

The manifest is one JSON document in the dataset ``manifest``; its ``shards`` table lists every shard with rows, bytes
and SHA-256. A shard holds datasets of equal length, so that ``datasets.load_dataset("hdf5", ...)`` reads it. A set is
written beside its final name, read back, and renamed into place with the manifest last: no manifest, no set.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from srood import json_documents, manifest_fields
from srood.errors import InputError
from srood.files import reserve, sync_folder
from srood.hashes import file_sha256
from srood.hdf5 import check_stored, open_plain
from srood.outlier_checks import column_problems, evidence_problems, row_problems, shard_problems

FORMAT = "srood-outliers"
SCHEMA_VERSION = 1
CHUNK_ROWS = 64
_NO_MANIFEST = re.compile(r"-\d{5}-of-\d{5}\.h5$|-evidence\.h5$")


def shard_name(manifest: Path, number: int, count: int) -> str:
    """File name of a shard, in the Hub's style of numbering."""
    return f"{manifest.stem}-{number:05d}-of-{count:05d}.h5"


def check_shard_names(path: Path, manifest: Mapping[str, Any]) -> None:
    """Check that a set's shards are named after its manifest, so that what is put beside them is of no other set.

    Raises:
        InputError: they are not; the manifest was renamed, or is not what it claims to be.
    """
    names = [str(entry["file"]) for entry in manifest["shards"]]
    if names != [shard_name(path, number, len(names)) for number in range(len(names))]:
        raise InputError(f"{path}: its shards are not named after it ({names[0]}, ...); give it its own name again")


def evidence_name(manifest: Path) -> str:
    """File name of a set's evidence."""
    return f"{manifest.stem}-evidence.h5"


def is_manifest_name(name: str) -> bool:
    """Whether a manifest may have this file name: not one that a shard or the evidence of another set could have."""
    return name.endswith(".h5") and not _NO_MANIFEST.search(name)


def files_beside(out: Path) -> list[Path]:
    """The files that are there under the names of a manifest's shards and evidence; there need be no manifest."""
    evidence = out.parent / evidence_name(out)
    shards = out.parent.glob(f"{glob.escape(out.stem)}-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9].h5")
    return sorted(shards) + [evidence] * evidence.exists()


# ---- writing --------------------------------------------------------------------------------------------------------


def write_set(
    out: Path,
    shards: Iterator[Mapping[str, np.ndarray]],
    count: int,
    manifest: dict[str, Any],
    scratch: Path,
    evidence: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write `count` shards and the manifest, verify them, and put them in place.

    Args:
        out: path of the manifest.
        shards: for each shard its columns by name, arrays of equal length; ``image`` is (n, H, W, 3) uint8.
        count: number of shards; names depend on it.
        manifest: JSON-able description; ``format``, ``schema_version``, ``rows`` and ``shards`` are added here.
        scratch: folder on the same file system, in which the files are made.
        evidence: arrays for a report on the set, of any lengths, in a file of their own; nothing else reads it.

    Returns:
        `out`.

    Raises:
        RuntimeError: what was written does not read back as it was given (a failing disk).
    """
    table: list[dict[str, Any]] = []
    for number, columns in enumerate(shards):
        path = scratch / shard_name(out, number, count)
        rows = len(columns["image"])
        _write_h5(path, columns)
        table.append({"file": path.name, "rows": rows, "bytes": path.stat().st_size, "sha256": file_sha256(path)})
        for problem in row_problems(path):
            raise RuntimeError(f"{path}: {problem} right after it was written; check the disk")
    described = [_write_evidence(scratch / evidence_name(out), evidence)] if evidence is not None else []
    document = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "rows": sum(entry["rows"] for entry in table),
        **({"evidence": described[0]} if described else {}),
        "shards": table,
        **manifest,
    }
    text = json.dumps(document, sort_keys=True, ensure_ascii=True, allow_nan=False)
    finished = scratch / out.name
    digest = hashlib.sha256(text.encode()).hexdigest()
    _write_h5(finished, {"manifest": np.bytes_(text), "manifest_sha256": np.bytes_(digest)})
    put_in_place(finished, out, [entry["file"] for entry in table + described])
    return out


def put_in_place(finished: Path, out: Path, beside: Sequence[str]) -> None:
    """Rename a set that was written and verified elsewhere on the same file system; what was at `out` is removed.

    Args:
        finished: the manifest; the manifest is renamed last
        out: its new path, of the same file name
        beside: names of the other files, which lie beside `finished`
    """
    remove_set(out)
    for name in beside:
        os.replace(finished.parent / name, out.parent / name)
    os.replace(finished, out)
    sync_folder(out.parent)


def remove_set(out: Path) -> None:
    """Remove a manifest, its shards and its evidence; the manifest first, so that no half of a set can be opened."""
    out.unlink(missing_ok=True)
    for path in files_beside(out):
        path.unlink()


def _write_evidence(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    _write_h5(path, arrays)
    with open_plain(path) as file:
        for name, values in arrays.items():
            if not np.array_equal(file[name][()], values, equal_nan=values.dtype.kind == "f"):
                raise RuntimeError(f"{path}: '{name}' reads back otherwise right after it was written; check the disk")
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}


def _write_h5(path: Path, columns: Mapping[str, Any]) -> None:
    # HDF5 cannot close a file for which there is no space, and the process ends with it: see that there is some
    size = sum(_stored_bytes(np.asarray(values)) for values in columns.values())
    try:
        reserve(path, size + size // 64 + (1 << 16))  # indexes of chunks
    finally:
        path.unlink(missing_ok=True)
    with h5py.File(path, "w", libver=("v108", "v108")) as file:  # a fixed format version: the same bytes everywhere
        for name, values in columns.items():
            array = np.asarray(values)
            if array.ndim == 0:
                file.create_dataset(name, data=array)
            else:
                chunk = (max(1, min(CHUNK_ROWS, len(array))), *array.shape[1:])
                file.create_dataset(name, data=array, chunks=chunk if len(array) else None)
    with open(path, "rb+") as written:
        os.fsync(written.fileno())


def _stored_bytes(array: np.ndarray) -> int:
    """Of whole chunks."""
    if array.ndim == 0 or not len(array):
        return array.nbytes
    chunk = min(CHUNK_ROWS, len(array))
    return -(-len(array) // chunk) * chunk * (array.nbytes // len(array))


# ---- reading --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OutlierSet:
    """An outlier set on disk. `open` it, then read rows by number; rows run over the shards in order."""

    path: Path
    manifest: dict[str, Any]
    fingerprint: str

    @classmethod
    def open(cls, path: str | Path, check_hashes: bool = True) -> OutlierSet:
        """Open a set and check that its shards are there and unaltered.

        Args:
            path: the manifest.
            check_hashes: hash every shard (about a second per GB); without it only names and sizes are checked.

        Raises:
            InputError: no such file, not an outlier set, another schema version, or a shard that is missing or altered.
        """
        path = Path(path)
        manifest = read_manifest(path)
        for problem in shard_problems(path, manifest, check_hashes):
            raise InputError(f"{problem}; build the set again, or restore the file")
        for entry in manifest["shards"]:
            for problem in column_problems(path.parent / entry["file"], entry["rows"], manifest):
                raise InputError(f"{path.parent / entry['file']}: {problem}; do not use this file")
        return cls(path, manifest, hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest())

    @property
    def num_rows(self) -> int:
        """Rows in the set."""
        return int(self.manifest["rows"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, 3) of every image.

        Raises:
            InputError: the manifest does not say it.
        """
        if manifest_fields.lacking(self.manifest, ["config.image_size"]):
            raise InputError(f"{self.path}: its manifest has no config.image_size; build the set with `curate build`")
        size = int(self.manifest["config"]["image_size"])
        return (size, size, 3)

    def read(self, column: str, rows: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """One column of the set, whole or at the given row numbers, in the order asked for.

        Raises:
            InputError: the set has no such column, or a row number is out of range.
        """
        wanted = np.arange(self.num_rows) if rows is None else np.asarray(rows, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.num_rows):
            raise InputError(f"{self.path}: rows run from 0 to {self.num_rows - 1}")
        result: np.ndarray | None = None
        first = 0
        for entry in self.manifest["shards"]:
            inside = np.flatnonzero((wanted >= first) & (wanted < first + entry["rows"]))
            if inside.size or result is None:
                with open_plain(self.path.parent / entry["file"]) as file:
                    if column not in file:
                        raise InputError(f"{self.path}: has no column '{column}'; it has {', '.join(sorted(file))}")
                    data = file[column]
                    if result is None:
                        result = np.empty((len(wanted), *data.shape[1:]), dtype=data.dtype)
                    # HDF5 reads rows in ascending order, once each
                    unique, back = np.unique(wanted[inside] - first, return_inverse=True)
                    contiguous = unique.size == entry["rows"]
                    result[inside] = (data[:] if contiguous else data[unique])[back]
            first += entry["rows"]
        if result is None:
            raise InputError(f"{self.path}: holds no rows; build it again with a larger corpus or weaker filters")
        return result

    def read_images(self, rows: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Images, (n, H, W, 3) uint8."""
        return self.read("image", rows)


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The manifest's JSON document.

    Raises:
        InputError: no such file, not an outlier set's manifest, or of a schema version this code does not know.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such outlier set; make one with `curate build --out {path}`")
    with open_plain(path) as stored_in:
        if "manifest" not in stored_in:
            shard = " (it looks like a shard; name the manifest beside it)" if "image" in stored_in else ""
            raise InputError(f"{path}: is not the manifest of an outlier set{shard}")
        try:
            check_stored(stored_in["manifest"])
            text = bytes(stored_in["manifest"][()])
            stored = bytes(stored_in["manifest_sha256"][()]).decode() if "manifest_sha256" in stored_in else None
            document = json_documents.parse(text)
        except (ValueError, TypeError, OSError, RuntimeError, KeyError, MemoryError) as error:
            raise InputError(f"{path}: its manifest is damaged ({_line(error)}); build the set again") from error
    if stored is not None and hashlib.sha256(text).hexdigest() != stored:
        raise InputError(f"{path}: was altered (its manifest's SHA-256 is another); build the set again")
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(f"{path}: is not the manifest of an outlier set")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{path}: has schema version {document.get('schema_version')}, this srood reads {SCHEMA_VERSION}; "
            "use the srood that made it, or build the set again"
        )
    evidence = [document["evidence"]] if document.get("evidence") else []
    shards = document.get("shards")
    if not isinstance(shards, list) or not all(_is_described(entry) for entry in shards + evidence):
        raise InputError(f"{path}: its table of shards is damaged; build the set again")
    for entry in shards + evidence:
        name = entry["file"]
        if Path(name).name != name or "\0" in name or name in ("", ".", ".."):
            raise InputError(f"{path}: names a file outside its folder ({entry['file']!r}); do not use this file")
        # in the Hub's cache manifest and shards are links, to one folder
        file = path.parent / entry["file"]
        if file.is_symlink() and file.resolve().parent != path.resolve().parent:
            raise InputError(f"{file}: is a link to another folder; put the file itself there")
    if not all(_is_count(entry.get("rows")) for entry in (document, *shards)):
        raise InputError(f"{path}: its table of shards does not say how many rows there are; build the set again")
    if document["rows"] != sum(entry["rows"] for entry in shards):
        raise InputError(f"{path}: says {document['rows']} rows, and its shards another number; build the set again")
    if problem := manifest_fields.problem(document):
        raise InputError(f"{path}: its manifest is damaged ({problem}); build the set again")
    return document


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_described(entry: Any) -> bool:
    kinds = {"file": str, "bytes": int, "sha256": str}
    return isinstance(entry, dict) and all(isinstance(entry.get(name), kind) for name, kind in kinds.items())


def verify(path: str | Path) -> list[str]:
    """Hash every shard, every row and, where it is there, the evidence again.

    A set without its evidence is whole: it holds what may not be passed on, and nothing but the report reads it.

    Returns:
        what differs, one line each; empty where everything agrees.

    Raises:
        InputError: the manifest itself cannot be read.
    """
    path = Path(path)
    manifest = read_manifest(path)
    problems = list(shard_problems(path, manifest, check_hashes=True))
    problems += evidence_problems(path, manifest)
    for entry in manifest["shards"]:
        shard = path.parent / entry["file"]
        if shard.is_file():
            try:
                found = list(column_problems(shard, entry["rows"], manifest)) or list(row_problems(shard))
                problems += [f"{shard}: {problem}" for problem in found]
            except InputError as error:
                problems.append(str(error))
            except (OSError, RuntimeError) as error:  # HDF5's, of what was altered
                problems.append(f"{shard}: cannot be read ({_line(error)})")
    return problems
