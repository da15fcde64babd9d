"""Rows of a set that meet conditions, as a set of their own. Their order is kept, and so are all columns."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curate import sampling, semantics
from curate.deriving.parents import Parent, check_apart, gather_images, open_parent
from curate.deriving.writing import (
    contamination_by_labels,
    derivation,
    recipe_of,
    stage,
    tells_id_classes,
    workspace,
    write,
)
from curate.outputs import BuildResult, check_out, existing
from curate.record import versions
from srood.errors import InputError

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
BAND = re.compile(rf"(?P<low>{NUMBER})?(?P<low_share>%)?:(?P<high>{NUMBER})?(?P<high_share>%)?")
KEPT_FIELDS = (  # of the parent's manifest, which hold for any of its rows
    *("resampling", "sources", "missing_sources", "unread_sources", "label_names", "excluded_labels", "id_labels"),
    *("leak_certificate", "near_duplicates", "id_filter"),
)


@dataclass(frozen=True)
class SelectConfig:
    """What to select from `file`; the command's options of the same names. Rows must meet all conditions."""

    file: Path
    out: Path
    label: tuple[str, ...] = ()
    exclude_label: tuple[str, ...] = ()
    cluster: tuple[int, ...] = ()
    id_ness: str | None = None
    size: int | None = None
    overwrite: bool = False

    def options(self) -> dict[str, Any]:
        """The options that decide the bytes, as the manifest holds them: not in which order they were given."""
        return {
            "label": sorted(set(self.label)),
            "exclude_label": sorted(set(self.exclude_label)),
            "cluster": sorted(set(self.cluster)),
            "id_ness": self.id_ness,
            "size": self.size,
        }


@dataclass(frozen=True)
class Band:
    """ID-ness from `low` to `high`, both within: values, or (`shares`) quantiles over the set, 0 to 1."""

    low: float | None
    high: float | None
    shares: bool


def select(config: SelectConfig) -> BuildResult:
    """Write the rows that meet all conditions, in the order of the set, with all columns.

    Raises:
        InputError: the set cannot be used, a condition cannot be applied to it or leaves no row, or the output exists
            with other content or cannot be written.
    """
    options = config.options()
    band = parse_band(config.id_ness) if config.id_ness is not None else None
    if config.size is not None and config.size < 1:
        raise InputError(f"--size {config.size}: must be at least 1")
    if not any(options.values()):
        raise InputError("nothing is selected; give --label, --exclude-label, --cluster, --id-ness or --size")
    check_out(config.out)
    parent = open_parent(config.file)
    check_apart(config.out, [parent])
    recipe = recipe_of("select", options, [parent])
    found = existing(config.out, recipe, config.overwrite)
    if found is not None:
        return BuildResult(config.out, found, True, (f"{config.out} already holds this set, verified",))

    columns = parent.columns(parent.column_names())
    rows, dropped, notes = choose(parent, columns, config, band)
    if config.size is not None and len(rows) < config.size:
        notes.append(f"asked for {config.size:,} rows, {len(rows):,} meet the conditions")
    columns = {name: values[rows] for name, values in columns.items()}
    manifest = {
        **describe(parent, columns["label"], config.size or len(rows), dropped, notes),
        "recipe": recipe,
        "derived": derivation("select", options, [parent], notes),
    }
    with workspace(config.out, recipe, config.overwrite) as work:
        images = gather_images([parent], np.zeros(len(rows), np.int64), rows, work.folder / "images.bin")
        return write(config.out, columns, images, manifest["config"]["shard_rows"], manifest, work, notes)


def describe(
    parent: Parent, label: np.ndarray, requested: int, dropped: dict[str, int], notes: list[str]
) -> dict[str, Any]:
    """The manifest, but for its recipe, derivation and table of shards; `label` (n,) of the rows that were kept.

    What the parent says of its strata and estimates is about other rows, and is not carried over; `notes` says so.
    """
    old = parent.manifest
    names = old["label_names"]
    known = tells_id_classes(old)
    showing_id = [number for number, name in enumerate(names) if name in old.get("id_labels", {})] if known else None
    if not known and (label >= 0).any():
        notes.append(f"contamination by labels is not known: {parent.name} does not say which show an ID class")
    if old["contamination"].get("estimated"):
        notes.append(f"the estimate of contamination in {parent.name} is of other rows and was left out")
    drawn = {name: value for name, value in (old.get("sampling") or {}).items() if name != "strata"}
    return {
        **{name: old[name] for name in KEPT_FIELDS if name in old},
        "config": {**old["config"], "size": requested, "shard_rows": old["config"].get("shard_rows", 10_000)},
        "requested_rows": requested,
        "stages": [*old["stages"], stage("select", parent.opened.num_rows, dropped)],
        "sampling": drawn,
        "contamination": contamination_by_labels(label, showing_id, old["contamination"]),
        "versions": versions(),
    }


# ---- conditions -----------------------------------------------------------------------------------------------------


def choose(
    parent: Parent, columns: dict[str, np.ndarray], config: SelectConfig, band: Band | None
) -> tuple[np.ndarray, dict[str, int], list[str]]:
    """The rows that meet all conditions, ascending; how many each condition dropped of what came to it; and notes.

    Raises:
        InputError: a condition cannot be applied to the set, or no row is left.
    """
    label, notes = columns["label"], list[str]()
    keep, dropped = np.ones(len(label), bool), dict[str, int]()

    def drop(why: str, met: np.ndarray) -> None:
        dropped[why] = int((keep & ~met).sum())
        keep[:] &= met

    if config.label:
        drop("not of these labels", np.isin(label, find_labels(parent, config.label, "--label")))
    if config.exclude_label:
        drop("excluded label", ~np.isin(label, find_labels(parent, config.exclude_label, "--exclude-label")))
    if config.cluster:
        drop("not of these clusters", _in_clusters(parent, columns, config.cluster))
    if band:
        if "id_ness" not in columns:
            raise InputError(
                f"--id-ness: {parent.opened.path} has no column id_ness; select from the sets it was made of"
            )
        inside, low, high = in_band(columns["id_ness"], band)
        drop("outside the band of ID-ness", inside)
        if band.shares:
            notes.append(f"ID-ness {config.id_ness} of {parent.name}: {low:.4f} to {high:.4f}")
    rows = np.flatnonzero(keep)
    if not len(rows):
        counts = ", ".join(f"{why} {count:,}" for why, count in dropped.items())
        raise InputError(f"{parent.opened.path}: no row meets all conditions ({counts}); weaken one")
    if config.size is not None:
        dropped["beyond --size"] = max(0, len(rows) - config.size)
    return rows[: config.size], dropped, notes


def find_labels(parent: Parent, wanted: Sequence[str], option: str) -> list[int]:
    """The labels that are meant: those of exactly this name, else by WordNet id or words (`curate.semantics`).

    Raises:
        InputError: one is no label of the set; the message names near ones.
    """
    names = parent.manifest["label_names"]
    found: set[int] = set()
    for name in wanted:
        same = {number for number, other in enumerate(names) if other == name}
        if not same and semantics.phrases(name):
            same = set(semantics.match_labels(names, semantics.from_lists(Path(option), {option: [name]})))
        if not same:
            raise InputError(f"{option} {name}: is no label of {parent.opened.path}; {_near(name, names)}")
        found |= same
    return sorted(found)


def _near(name: str, names: Sequence[str]) -> str:
    if not names:
        return "its labels have no names"
    of_phrase: dict[str, str] = {}
    for label in names:
        for phrase in (label.lower(), *semantics.phrases(label), *semantics.words_of(label)):
            of_phrase.setdefault(phrase, label)
    close = difflib.get_close_matches(name.lower(), list(of_phrase), n=6)
    labels = list(dict.fromkeys(of_phrase[phrase] for phrase in close))[:3]
    if labels:
        return f"did you mean {' or '.join(repr(label) for label in labels)}?"
    return f"its {len(names):,} labels are {semantics.shown(names)}"


def _in_clusters(parent: Parent, columns: dict[str, np.ndarray], wanted: Sequence[int]) -> np.ndarray:
    if "cluster" not in columns:
        raise InputError(f"--cluster: {parent.opened.path} has no column cluster; build the set again")
    there = np.unique(columns["cluster"])
    for number in wanted:
        if number not in there:
            raise InputError(
                f"--cluster {number}: no row of {parent.opened.path} is of this cluster; "
                f"there are {len(there):,}, numbered {there[0]} to {there[-1]}"
            )
    return np.isin(columns["cluster"], wanted)


def parse_band(text: str) -> Band:
    """Read `--id-ness`: values ``-1:0.5``, or shares of the set's rows ``50%:90%``; either end may be left open.

    Raises:
        InputError: it is neither, or the band is empty.
    """
    match = BAND.fullmatch(text)
    low, high = (float(match[end]) if match and match[end] else None for end in ("low", "high"))
    ends = [match[f"{end}_share"] for end in ("low", "high") if match and match[end]] if match else []
    stray = match and any(match[f"{end}_share"] and not match[end] for end in ("low", "high"))
    if not ends or stray or len(set(ends)) > 1:
        raise InputError(f"--id-ness {text}: write LOW:HIGH, as in -1:0.5, or in shares of the rows, as in 50%:90%")
    if low is not None and high is not None and not low < high:
        raise InputError(f"--id-ness {text}: LOW must be below HIGH")
    if not ends[0]:
        return Band(low, high, False)
    low, high = (0 if low is None else low) / 100, (100 if high is None else high) / 100
    if not 0 <= low < high <= 1:
        raise InputError(f"--id-ness {text}: shares lie between 0% and 100%")
    return Band(low, high, True)


def in_band(id_ness: np.ndarray, band: Band) -> tuple[np.ndarray, float, float]:
    """Which rows lie in the band, bool (N,), and the ID-ness at its ends."""
    if band.shares:
        assert band.low is not None and band.high is not None
        return sampling.within(id_ness, band.low, band.high)
    low = np.float32(-np.inf if band.low is None else band.low)  # float32 as the column: -0.3 means the -0.3 printed
    high = np.float32(np.inf if band.high is None else band.high)
    return (id_ness >= low) & (id_ness <= high), float(low), float(high)
