"""What a set made from sets has in common with every other: how it is written, and what its labels tell."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from curate import contamination
from curate.deriving.parents import Parent
from curate.inputs import hash_of
from curate.outputs import BuildResult, existing
from curate.workspace import Workspace
from srood import outliers
from srood.files import writing
from srood.locks import locked


def recipe_of(operation: str, options: Mapping[str, Any], parents: list[Parent]) -> str:
    """A hash of all that decides the result: the operation, its options and the parents' fingerprints."""
    fingerprints = [parent.opened.fingerprint for parent in parents]
    return hash_of({"operation": operation, "options": dict(options), "parents": fingerprints})


def derivation(operation: str, options: Mapping[str, Any], parents: list[Parent], notes: list[str]) -> dict[str, Any]:
    """The manifest's field `derived`."""
    provenance = [parent.provenance() for parent in parents]
    return {"operation": operation, "options": dict(options), "parents": provenance, "notes": notes}


def stage(name: str, seen: int, dropped: Mapping[str, int]) -> dict[str, Any]:
    """An entry of the manifest's `stages`; reasons of no row are left out."""
    left = seen - sum(dropped.values())
    return {"stage": name, "seen": seen, "dropped": {why: n for why, n in dropped.items() if n}, "left": left}


@contextmanager
def workspace(out: Path, recipe: str, overwrite: bool) -> Iterator[Workspace]:
    """The folder in which a set is made, gone afterwards, whatever happens.

    Raises:
        InputError: another process writes the same set or has just written another, the disk is full, or writing fails
            otherwise.
    """
    with locked(out, "--out "), writing(out, "--out "):
        existing(out, recipe, overwrite)
        work = Workspace(out, recipe)
        try:
            yield work
        finally:
            work.remove()


def write(
    out: Path,
    columns: Mapping[str, np.ndarray],
    images: np.ndarray,
    shard_rows: int,
    manifest: dict[str, Any],
    work: Workspace,
    notes: list[str],
) -> BuildResult:
    """Write shards of `shard_rows` rows and the manifest; `columns` are (N, ...) and `images` (N, H, W, 3) uint8."""

    def shards() -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(images), shard_rows):
            rows = slice(start, start + shard_rows)
            yield {"image": images[rows], **{name: values[rows] for name, values in columns.items()}}

    outliers.write_set(out, shards(), -(-len(images) // shard_rows), manifest, work.folder)
    return BuildResult(out, outliers.read_manifest(out), True, tuple(notes))


def contamination_by_labels(
    labels: np.ndarray, showing_id: Collection[int] | None, corpus: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The manifest's `contamination`, of rows with these labels (N,); nothing is estimated.

    Args:
        showing_id: the labels that are known to show an ID class; None where that is not known.
        corpus: the `contamination` of another set from the same corpus, whose figures of the corpus hold here too.
    """
    labelled = int((labels >= 0).sum())
    showing = int(np.isin(labels, sorted(showing_id)).sum()) if showing_id else 0
    known = showing_id is not None
    measured = {
        "measured_by": "labels" if known else None,
        "corpus": None,
        "kept": round(showing / labelled, 6) if known and labelled else None,
        "labelled_rows_kept": labelled,
    }
    described = contamination.describe(measured, {"kept": (showing, labelled)}, None)
    if known and corpus:
        described |= {name: corpus.get(name) for name in ("corpus", "corpus_interval")}
    return described


def tells_id_classes(manifest: Mapping[str, Any]) -> bool:
    """Whether the labels of a set tell which of its rows show an ID class."""
    return bool(manifest.get("id_labels")) and manifest["contamination"].get("measured_by") == "labels"
