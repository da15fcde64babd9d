"""Whether a set that was made again is the set that its manifest describes, and where it is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.deriving.diff import column_difference
from curate.rebuilding.recorded_inputs import other_versions
from srood.errors import InputError
from srood.hdf5 import open_plain
from srood.hub import HubFile
from srood.outliers import OutlierSet, read_manifest
from srood.parquet import ParquetPart

Columns = dict[str, np.ndarray]  # of a set, by name, one value a row


@dataclass(frozen=True)
class Agreement:
    """How a set made again compares with its record.

    Attributes:
        shards, rows: of the set made again
        altered: shards whose bytes are not the recorded ones, by number; all where their number differs
        manifest: fields of the manifest that differ, in words; names of files do not count
        missing, added: rows that only the recorded set has, and only the new one; by the SHA-256 of their pixels
        reordered: the same rows stand in another order
        columns: where the rows are the same, columns that differ, and in how many rows
        compared: whether the recorded rows were at hand; the four fields above say nothing where they were not
    """

    shards: int
    rows: int
    altered: tuple[int, ...] = ()
    manifest: tuple[str, ...] = ()
    missing: int = 0
    added: int = 0
    reordered: bool = False
    columns: dict[str, int] = field(default_factory=dict)
    compared: bool = False

    @property
    def bytes_agree(self) -> bool:
        """Whether every shard is the recorded one, byte for byte."""
        return not self.altered

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"bytes_agree": self.bytes_agree, **asdict(self)}

    def lines(self) -> list[str]:
        """For people."""
        differs = [f"the manifest differs in {', '.join(self.manifest)}"] if self.manifest else []
        shards = f"{self.shards:,} shard{'s' if self.shards != 1 else ''}"
        if self.bytes_agree:
            return [f"agrees byte for byte: {shards}, {self.rows:,} rows", *differs]
        first = f"does not agree: {len(self.altered)} of {shards} {'differ' if len(self.altered) != 1 else 'differs'}"
        if not self.compared:
            why = "the recorded rows are not at hand to say which of them differ"
        elif self.missing or self.added:
            added = f"{self.added:,} of {self.rows:,} rows are not in the recorded set"
            why = f"{added}, {self.missing:,} of its rows are not here"
        elif self.reordered:
            why = f"all {self.rows:,} rows have the recorded pixels, in another order"
        elif self.columns:
            columns = ", ".join(f"{name} ({count:,} rows)" for name, count in self.columns.items())
            why = f"all {self.rows:,} rows have the recorded pixels, in the same order; columns that differ: {columns}"
        else:
            why = f"all {self.rows:,} rows agree in every column; only the bytes of the files differ"
        return [first, why, *differs]


def compare(manifest: Mapping[str, Any], made: Path, recorded: Columns | None = None) -> Agreement:
    """Compare a set with the manifest that it was made from.

    Args:
        manifest: the record.
        made: the manifest of the set that was made again, whose shards are as it says.
        recorded: the rows of the set of the record, where they are at hand.
    """
    document = read_manifest(made)
    hashes = [[entry["sha256"] for entry in of["shards"]] for of in (manifest, document)]
    altered = [n for n, pair in enumerate(zip(*hashes, strict=False)) if pair[0] != pair[1]]
    if len(hashes[0]) != len(hashes[1]):
        altered = list(range(len(hashes[1])))
    fields = _manifest_fields(manifest, document)
    result = Agreement(len(hashes[1]), int(document["rows"]), tuple(altered), fields)
    if not altered or recorded is None:
        return result
    return _with_rows(result, recorded, columns_of_set(OutlierSet.open(made)))


def columns_of_set(opened: OutlierSet) -> Columns:
    """Every column of a set on this machine but the images."""
    with open_plain(opened.path.parent / opened.manifest["shards"][0]["file"]) as file:
        names = [name for name in sorted(file) if name != "image"]
    return {name: opened.read(name) for name in names}


def columns_of_index(files: Sequence[HubFile], rows: int) -> Columns | None:
    """Every column but the images of Parquet files in a repository, or None where they do not hold these `rows`."""
    tables = []
    try:
        for file in files:
            with ParquetPart(remote=file).open() as parquet:
                tables.append(parquet.read(columns=[name for name in parquet.schema_arrow.names if name != "image"]))
    except InputError:  # the index is only asked to say more of a difference
        return None
    if not tables or sum(table.num_rows for table in tables) != rows:
        return None
    whole = pa.concat_tables(tables)
    return {name: _as_array(whole.column(name)) for name in whole.column_names}


def _as_array(column: pa.ChunkedArray) -> np.ndarray:
    """Values as the shards hold them: text as bytes."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.array([(text or "").encode() for text in column.to_pylist()])
    return np.asarray(column.to_numpy())


def _manifest_fields(recorded: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[str, ...]:
    """Fields of two manifests that differ, versions with what they are; the shards are compared by themselves."""
    names = [name for name in sorted(recorded.keys() | document.keys()) if name != "shards"]
    words = {"versions": f"versions ({', '.join(other_versions(recorded))})"}
    return tuple(words.get(n, n) for n in names if _nameless(recorded.get(n)) != _nameless(document.get(n)))


def _nameless(value: Any) -> Any:
    """An entry of a file without the name, which follows from --out."""
    return {k: v for k, v in value.items() if k != "file"} if isinstance(value, dict) and "sha256" in value else value


def _with_rows(result: Agreement, was: Columns, now: Columns) -> Agreement:
    if "sha256" not in was or "sha256" not in now:
        return result
    before, after = (Counter(of["sha256"].tolist()) for of in (was, now))
    missing, added = sum((before - after).values()), sum((after - before).values())
    columns: dict[str, int] = {}
    reordered = False
    if not missing and not added:
        reordered = not np.array_equal(was["sha256"], now["sha256"])
        shared = [] if reordered else sorted(was.keys() & now.keys())
        columns = {name: count for name in shared if (count := column_difference(was[name], now[name]).rows)}
    found = {"missing": missing, "added": added, "reordered": reordered, "columns": columns, "compared": True}
    return replace(result, **found)  # type: ignore[arg-type]
