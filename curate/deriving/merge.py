"""Sets joined into one: every picture once, in an order that depends on no parent.

Rows are ranked by a hash of the seed and their pixels. So the order in which sets are named changes nothing, a row has
the same rank in whatever it is merged into, and the first n rows are a uniform sample of all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from curate import dedup
from curate.config import check_seed
from curate.copies import CopyThreshold
from curate.deriving import joining
from curate.deriving.parents import Parent, check_apart, gather_images, open_parent
from curate.deriving.writing import derivation, recipe_of, stage, workspace, write
from curate.outputs import BuildResult, check_out, existing
from curate.record import versions
from curate.row_file import compact
from srood.errors import InputError
from srood.progress import progress_bar

GATHERED = 1024  # images moved at once
EXACT, NEAR = "same pixels as another row", "repeats an earlier row"


@dataclass(frozen=True)
class MergeConfig:
    """The sets to merge; the command's options of the same names."""

    files: tuple[Path, ...]
    out: Path
    keep_near_duplicates: bool = False
    seed: int = 0
    overwrite: bool = False

    def options(self) -> dict[str, Any]:
        """The options that decide the bytes, as the manifest holds them."""
        return {"keep_near_duplicates": self.keep_near_duplicates, "seed": self.seed}


def merge(config: MergeConfig, console: Console | None = None) -> BuildResult:
    """Write the rows of all sets, each picture once.

    Raises:
        InputError: fewer than two sets, one of them twice or not usable, columns that would not be comparable, or the
            output exists with other content or cannot be written.
    """
    if len(config.files) < 2:
        raise InputError("merge: needs at least two sets; to copy one, copy its files")
    check_seed(config.seed)
    check_out(config.out)
    # sorted by content: then nothing depends on the order in which sets were named
    parents = sorted(map(open_parent, config.files), key=lambda parent: parent.shard_hashes)
    joining.check_comparable(parents)
    check_apart(config.out, parents)
    recipe = recipe_of("merge", config.options(), parents)
    found = existing(config.out, recipe, config.overwrite)
    if found is not None:
        return BuildResult(config.out, found, True, (f"{config.out} already holds this set, verified",))

    notes: list[str] = []
    columns, of, row = joined_columns(parents, notes)
    total = len(of)
    kept = in_order(columns["sha256"], columns["label"], of, config.seed)
    with workspace(config.out, recipe, config.overwrite) as work:
        images = gather_images(parents, of[kept], row[kept], work.folder / "images.bin")
        dropped, index = {EXACT: total - len(kept)}, None
        if not config.keep_near_duplicates:
            threshold = joining.strictest_threshold(parents)
            same = groups(images, threshold, console or Console(stderr=True), work.folder)
            first, index = same.representative == np.arange(len(images)), same.index
            dropped[NEAR] = int((~first).sum())
            images, kept = images[: compact(images, first, GATHERED)], kept[first]
        columns = {name: values[kept] for name, values in columns.items()}
        if "cluster" in columns:
            columns["cluster"] = _dense(columns["cluster"])
        manifest = {
            **describe(parents, columns, config, stage("merge", total, dropped), notes),
            "near_duplicates": {"index": index},
            "recipe": recipe,
            "derived": derivation("merge", config.options(), parents, notes),
        }
        return write(config.out, columns, images, manifest["config"]["shard_rows"], manifest, work, notes)


def describe(
    parents: Sequence[Parent],
    columns: dict[str, np.ndarray],
    config: MergeConfig,
    merged: dict[str, Any],
    notes: list[str],
) -> dict[str, Any]:
    """The manifest, but for its recipe, derivation and table of shards; `columns` are those of the rows kept."""
    rows, names = len(columns["label"]), joining.label_names(parents)
    id_labels = joining.labels_with_reasons(parents, "id_labels")
    there = {names[label] for label in np.unique(columns["label"]).tolist() if 0 <= label < len(names)}
    excluded = joining.labels_with_reasons(parents, "excluded_labels")
    contamination = joining.contamination(parents, columns["label"], id_labels)
    if contamination["labelled_rows_kept"] and not contamination["measured_by"]:
        notes.append("contamination by labels is not known: not every set says which of its labels show an ID class")
    if any(parent.manifest["contamination"].get("estimated") for parent in parents):
        notes.append("the sets' estimates of contamination are of other rows and were left out")
    resampling = joining.union(p.manifest["resampling"] for p in parents if p.manifest.get("resampling"))
    clusters = {"clusters": len(np.unique(columns["cluster"]))} if "cluster" in columns else {}
    return {
        **joining.sources(parents),
        "config": joining.config(parents, rows),
        "requested_rows": rows,
        "resampling": "; ".join(resampling),
        "label_names": names,
        "excluded_labels": {name: why for name, why in excluded.items() if name not in there},
        "id_labels": id_labels,
        "stages": joining.stages(parents, merged),
        "sampling": {"strategy": "merged", "seed": config.seed, "rows": merged["seen"], **clusters},
        "leak_certificate": joining.leak_certificate(parents, notes),
        "id_filter": joining.id_filter(parents),
        "contamination": contamination,
        "versions": versions(),
    }


# ---- rows -----------------------------------------------------------------------------------------------------------


def joined_columns(parents: Sequence[Parent], notes: list[str]) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Columns of all parents end to end, and for each row the number of its parent and the row in it, int64 (N,).

    Columns that not all have are left out, and so is ID-ness on different scales; `notes` says which. Labels and
    clusters are renumbered.
    """
    ordered = [parent.column_names() for parent in parents]
    have = [set(names) for names in ordered]
    shared = set.intersection(*have)
    for parent, mine in zip(parents, have, strict=True):
        if extra := sorted(mine - shared):
            lacking = ", ".join(p.name for p, other in zip(parents, have, strict=True) if not set(extra) <= other)
            notes.append(f"left out: column {', '.join(extra)} of {parent.name}, which {lacking} does not have")
    if "id_ness" in shared and not joining.same_scale(parents):
        shared.remove("id_ness")
        notes.append("left out: column id_ness, which is relative to the corpus that was read, and the corpora differ")
    names = [name for name in ordered[0] if name in shared]
    of_parent = [parent.columns(names) for parent in parents]
    labels = joining.renumber_labels(parents, [columns["label"] for columns in of_parent], notes)
    clusters = _renumbered_clusters(parents, of_parent) if "cluster" in shared else []
    joined = {name: np.concatenate([columns[name] for columns in of_parent]) for name in names if name != "image"}
    joined["label"] = np.concatenate(labels)
    if clusters:
        joined["cluster"] = np.concatenate(clusters)
    sizes = [parent.opened.num_rows for parent in parents]
    return joined, np.repeat(np.arange(len(parents)), sizes), np.concatenate([np.arange(size) for size in sizes])


def _renumbered_clusters(parents: Sequence[Parent], columns: Sequence[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """Clusters such that two rows share a number only where one k-means put them together; -1 stays."""
    start: dict[str, int] = {}
    origins = [_clustering(parent.manifest, parent.opened.fingerprint) for parent in parents]
    most = 1 + max(int(of_parent["cluster"].max(initial=-1)) for of_parent in columns)
    for origin in origins:
        start.setdefault(origin, most * len(start))
    return [
        np.where(of_parent["cluster"] >= 0, of_parent["cluster"] + start[origin], of_parent["cluster"])
        for origin, of_parent in zip(origins, columns, strict=True)
    ]


def _clustering(manifest: dict[str, Any], fingerprint: str) -> str:
    """The fingerprint of the set that the cluster numbers were given in: `select` keeps its parent's."""
    derived = manifest.get("derived")
    if not derived or derived["operation"] != "select":
        return fingerprint
    parent = derived["parents"][0]
    return _clustering(parent["manifest"], parent["fingerprint"])


def _dense(cluster: np.ndarray) -> np.ndarray:
    """Cluster numbers without gaps, in the same order; -1 stays."""
    new = np.full(len(cluster), -1, np.int64)
    named = cluster >= 0
    new[named] = np.unique(cluster[named], return_inverse=True)[1]
    return new


def in_order(sha256: np.ndarray, label: np.ndarray, of: np.ndarray, seed: int) -> np.ndarray:
    """Rows in the order of the result, int64, each picture once: by SHA-256 of the seed and the pixels' SHA-256.

    Of rows with the same pixels, one that has a label is taken before one that has none, then that of the first parent:
    losing a label would make contamination look less.
    """
    order = np.lexsort((np.arange(len(of)), of, label < 0, sha256))
    _, first = np.unique(sha256[order], return_index=True)
    rows = order[first]
    prefix = f"{seed}:".encode()
    rank = [hashlib.sha256(prefix + digest).digest() for digest in sha256[rows].tolist()]
    return rows[np.array(sorted(range(len(rank)), key=rank.__getitem__), np.int64)]


def groups(images: np.ndarray, threshold: CopyThreshold, console: Console, folder: Path) -> dedup.Groups:
    """Groups of the same picture among `images` (N, H, W, 3) by this threshold; what it takes lies in `folder`."""
    with progress_bar("images", console) as progress:
        progress.add_task(f"near-duplicates among {len(images):,} images", total=None, note="")
        return dedup.find_groups(images, None, threshold, folder=folder)
