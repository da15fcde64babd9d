"""What two sets have in common: rows by their pixels, columns of the common rows, manifests, bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srood.hdf5 import open_plain
from srood.outliers import OutlierSet

IDENTICAL, SAME_ROWS, DIFFERENT = "identical", "same rows, other bytes", "different"
# of a manifest: what is compared by bytes, depends on the name of the file, or belongs to the parents
_APART = ("shards", "evidence")
_OF_A_PARENT = ("file", "fingerprint")
_KEYED_BY = ("stage", "name", "set")  # lists of such entries are compared entry by entry


@dataclass(frozen=True)
class ColumnDifference:
    """Common rows whose values differ, and by how much at the most where they are floats."""

    rows: int
    largest: float | None = None


@dataclass(frozen=True)
class Difference:
    """Two sets, A and B. Rows are the same if their pixels are; `columns` holds those that differ.

    `fields` lists (field of the manifest, value in A, value in B), None where it is not there.
    """

    a: Path
    b: Path
    rows: tuple[int, int]
    common: int
    columns: dict[str, ColumnDifference]
    only_columns: tuple[tuple[str, ...], tuple[str, ...]]
    same_order: bool
    same_shards: bool
    fields: tuple[tuple[str, Any, Any], ...]

    @property
    def only(self) -> tuple[int, int]:
        """Rows only in A, and only in B."""
        return self.rows[0] - self.common, self.rows[1] - self.common

    @property
    def verdict(self) -> str:
        """IDENTICAL (shards to the byte, and manifests but for file names), SAME_ROWS or DIFFERENT."""
        if self.same_shards and not self.fields:
            return IDENTICAL
        return DIFFERENT if any(self.only) else SAME_ROWS

    def headline(self) -> str:
        """The verdict, and what there is to it, in a line."""
        if self.verdict == IDENTICAL:
            return f"identical: {self.common:,} rows, every byte of the shards and every field of the manifest"
        if self.verdict == DIFFERENT:
            what = f"{self.common:,} rows in both, {self.only[0]:,} only in A, {self.only[1]:,} only in B"
            return f"different: {what}"
        parts = ["shards are byte-identical" if self.same_shards else f"all {self.common:,} rows in both"]
        parts += [] if self.same_order else ["in another order"]
        names = [*self.columns, *self.only_columns[0], *self.only_columns[1]]
        parts += [f"columns differ: {', '.join(names)}"] if names else []
        parts += [f"{len(self.fields)} fields of the manifest differ"] if self.fields else []
        return f"same rows, other bytes: {'; '.join(parts)}"

    def summary(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "verdict": self.verdict,
            "a": str(self.a),
            "b": str(self.b),
            "rows": {"a": self.rows[0], "b": self.rows[1]},
            "in_both": self.common,
            "only_in": {"a": self.only[0], "b": self.only[1]},
            "same_order": self.same_order,
            "same_shards": self.same_shards,
            "columns": {name: {"rows": d.rows, "largest": d.largest} for name, d in self.columns.items()},
            "only_columns": {"a": list(self.only_columns[0]), "b": list(self.only_columns[1])},
            "manifest": [{"field": field, "a": a, "b": b} for field, a, b in self.fields],
        }


def compare(a: Path, b: Path) -> Difference:
    """Compare two outlier sets.

    Raises:
        InputError: one of them is no outlier set, or its shards are missing or altered.
    """
    one, other = OutlierSet.open(a), OutlierSet.open(b)
    names = [_column_names(one), _column_names(other)]
    rows_a, rows_b = _common_rows(_column(one, "sha256"), _column(other, "sha256"))
    columns = {}
    for name in sorted((names[0] & names[1]) - {"image", "sha256"}):
        left, right = _column(one, name)[rows_a], _column(other, name)[rows_b]
        if name == "label":
            left, right = _by_name(left, one.manifest), _by_name(right, other.manifest)
        found = column_difference(left, right)
        if found.rows:
            columns[name] = found
    return Difference(
        a=Path(a),
        b=Path(b),
        rows=(one.num_rows, other.num_rows),
        common=len(rows_a),
        columns=columns,
        only_columns=(tuple(sorted(names[0] - names[1])), tuple(sorted(names[1] - names[0]))),
        same_order=bool((np.diff(rows_b[np.argsort(rows_a)]) > 0).all()),
        same_shards=same_shards(one.manifest, other.manifest),
        fields=tuple(manifest_differences(one.manifest, other.manifest)),
    )


def same_shards(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether the shards that two manifests name have the same bytes, whatever their file names."""
    return [entry["sha256"] for entry in a["shards"]] == [entry["sha256"] for entry in b["shards"]]


def manifest_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(field, value in A, value in B) for each field of two manifests that differs; nested fields with dots.

    File names are left out, and so are shards, which `same_shards` compares.
    """
    found: list[tuple[str, Any, Any]] = []
    _walk("", _comparable(a), _comparable(b), found)
    return found


def _comparable(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest without what is compared otherwise: parents by their fingerprints, evidence by its bytes."""
    fields = {name: value for name, value in manifest.items() if name not in _APART}
    if manifest.get("evidence"):
        fields["evidence.sha256"] = manifest["evidence"].get("sha256")
    if manifest.get("derived"):
        derived = manifest["derived"]
        parents = [{name: parent.get(name) for name in _OF_A_PARENT} for parent in derived["parents"]]
        fields["derived"] = {**derived, "parents": dict(enumerate(parents))}
    return fields


def _walk(place: str, a: Any, b: Any, found: list[tuple[str, Any, Any]]) -> None:
    a, b = _keyed(a), _keyed(b)
    for one, other in ((a, b), (b, a)):
        if other in (None, []) and isinstance(one, dict) and one:  # all of it is missing: name what
            a, b = (a, {}) if one is a else ({}, b)
    if isinstance(a, dict) and isinstance(b, dict):
        for name in dict.fromkeys([*a, *b]):
            _walk(f"{place}.{name}" if place else str(name), a.get(name), b.get(name), found)
    elif a != b:
        found.append((place, a, b))


def _keyed(value: Any) -> Any:
    """A list of entries that have a name, as a dict by name; other values as they are."""
    if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
        by = next((key for key in _KEYED_BY if all(key in entry for entry in value)), None)
        if by is None:
            return value
        keyed: dict[str, Any] = {}
        for entry in value:
            name, times = str(entry[by]), 2
            while name in keyed:
                name, times = f"{entry[by]} ({times})", times + 1
            keyed[name] = {key: inner for key, inner in entry.items() if key != by}
        return keyed
    return value


# ---- rows -----------------------------------------------------------------------------------------------------------


def _column_names(opened: OutlierSet) -> set[str]:
    if not opened.manifest["shards"]:
        return set()
    with open_plain(opened.path.parent / opened.manifest["shards"][0]["file"]) as file:
        return set(file)


def _column(opened: OutlierSet, name: str) -> np.ndarray:
    return opened.read(name) if opened.num_rows else np.empty(0, "S64")


def _common_rows(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of A and of B that hold the same value, pair by pair; a value that is there twice pairs twice."""
    left, right = _counted(a), _counted(b)
    pairs = [(row, right[value]) for value, row in left.items() if value in right]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _counted(values: np.ndarray) -> dict[tuple[bytes, int], int]:
    times: dict[bytes, int] = {}
    rows = {}
    for row, value in enumerate(values.tolist()):
        times[value] = times.get(value, 0) + 1
        rows[value, times[value]] = row
    return rows


def _by_name(label: np.ndarray, manifest: Mapping[str, Any]) -> np.ndarray:
    """Labels by their names, str; by their numbers where they have none, and -1 for no label."""
    names: Sequence[str] = manifest.get("label_names") or ()
    return np.array([names[n] if 0 <= n < len(names) else f"\0{n}" for n in label.tolist()], dtype=object)


def column_difference(a: np.ndarray, b: np.ndarray) -> ColumnDifference:
    """In how many entries two columns (n, ...) differ (NaN equals NaN), and for floats the largest difference."""
    differs = a != b
    floats = a.dtype.kind == "f" and b.dtype.kind == "f"
    if floats:
        differs &= ~(np.isnan(a) & np.isnan(b))
    rows = int(differs.reshape(len(a), -1).any(axis=1).sum()) if len(a) else 0
    if not floats or not rows:
        return ColumnDifference(rows)
    apart = np.abs(a.astype(np.float64) - b.astype(np.float64))[differs]
    return ColumnDifference(rows, float(apart.max()) if np.isfinite(apart).all() else None)
