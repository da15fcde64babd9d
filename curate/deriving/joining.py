"""What the manifest of merged sets says, drawn from the parents': only what is true of every row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from curate.copies import CopyThreshold
from curate.deriving.parents import Parent, builds
from curate.deriving.writing import contamination_by_labels, stage, tells_id_classes
from srood.errors import InputError

DERIVED_STAGES = ("select", "merge")


def check_comparable(parents: Sequence[Parent]) -> None:
    """Check that a column means the same in every set.

    Raises:
        InputError: the same set is there twice, or images differ in size, or ID classes, ID set or embedder differ.
    """
    first = parents[0]
    for number, parent in enumerate(parents):
        for other in parents[:number]:
            if parent.shard_hashes == other.shard_hashes:
                raise InputError(f"{other.opened.path} and {parent.opened.path}: are the same set; name each once")
    for other in parents[1:]:
        pair = f"{first.opened.path} and {other.opened.path}"
        a, b = first.manifest, other.manifest
        sizes = a["config"]["image_size"], b["config"]["image_size"]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"{pair}: their images are of {sizes[0]} and {sizes[1]} pixels; build both with one --image-size"
            )
        if a["id_filter"].get("id_class_names") != b["id_filter"].get("id_class_names"):
            raise InputError(f"{pair}: their ID classes differ, so id_class does; build both with one --id")
        if not _same_id_set(a, b):
            raise InputError(f"{pair}: their ID sets differ, so similarities do; build both with one --id")
        if a["id_filter"].get("embedder_fingerprint") != b["id_filter"].get("embedder_fingerprint"):
            raise InputError(f"{pair}: their embedders differ, so similarities do; build both with one --embedder")


def _same_id_set(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """By the fingerprints of the ID training images where both sets protect them, else by name."""
    prints, names = [], []
    for manifest in (a, b):
        origins = list(builds(manifest))
        names.append({str(build["config"].get("id")) for build in origins})
        prints.append(
            {
                build["leak_certificate"]["protected"][0]["fingerprint"]  # the ID training images come first
                for build in origins
                if build["leak_certificate"]["protected"] and "none" not in build["config"].get("protect", ())
            }
        )
    return bool(prints[0] & prints[1]) if all(prints) else bool(names[0] & names[1])


def stages(parents: Sequence[Parent], last: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The stages of all parents together, and then `last`.

    Stages of builds are summed by name; a set that has no stage of a name lets its rows pass. What sets were made into
    by `select` and `merge` follows, parent by parent. Each entry sees what the one before left.
    """
    built = [[entry for entry in p.manifest["stages"] if entry["stage"] not in DERIVED_STAGES] for p in parents]
    total = sum(entries[0]["seen"] if entries else p.opened.num_rows for p, entries in zip(parents, built, strict=True))
    table: list[dict[str, Any]] = []

    def add(name: str, entries: Iterable[Mapping[str, Any]]) -> None:
        nonlocal total
        dropped: dict[str, int] = {}
        for entry in entries:
            for why, count in entry["dropped"].items():
                dropped[why] = dropped.get(why, 0) + count
        table.append(stage(name, total, dropped))
        total = table[-1]["left"]

    for name in dict.fromkeys(entry["stage"] for entries in built for entry in entries):
        add(name, (entry for entries in built for entry in entries if entry["stage"] == name))
    for parent in parents:
        for entry in parent.manifest["stages"]:
            if entry["stage"] in DERIVED_STAGES:
                add(entry["stage"], [entry])
    return [*table, dict(last)]


# ---- labels ---------------------------------------------------------------------------------------------------------


def label_names(parents: Sequence[Parent]) -> list[str]:
    """The labels of all parents: the same name is the same label, but where all number the same corpus alike."""
    if _numbered_alike(parents):
        return list(parents[0].manifest["label_names"])
    return list(dict.fromkeys(name for parent in parents for name in parent.manifest["label_names"]))


def renumber_labels(parents: Sequence[Parent], labels: Sequence[np.ndarray], notes: list[str]) -> list[np.ndarray]:
    """Each parent's labels as indices into `label_names`; -1 stays.

    A label without a name is no label in the company of others, unless all parents number the same corpus.
    """
    if _numbered_alike(parents):
        return list(labels)
    index = {name: number for number, name in enumerate(label_names(parents))}
    renumbered = []
    for parent, label in zip(parents, labels, strict=True):
        table = np.array([index[name] for name in parent.manifest["label_names"]], np.int64)
        named = (label >= 0) & (label < len(table))
        new = np.full(len(label), -1, np.int64)
        new[named] = table[label[named]]
        if lost := int(((label >= 0) & ~named).sum()):
            notes.append(f"{lost:,} rows of {parent.name} have a label without a name; among others' it is none (-1)")
        renumbered.append(new)
    return renumbered


def _numbered_alike(parents: Sequence[Parent]) -> bool:
    """Whether a label number means the same in every set; a corpus of several sets may have a name more than once."""
    return all(_all_same([parent.manifest[name] for parent in parents]) for name in ("sources", "label_names"))


def contamination(parents: Sequence[Parent], label: np.ndarray, id_labels: Mapping[str, str]) -> dict[str, Any]:
    """The manifest's `contamination`, by labels where those of every parent tell; `label` (n,) as renumbered."""
    labelled = [p for p in parents if p.manifest["contamination"].get("labelled_rows_kept")]
    known = bool(labelled) and all(tells_id_classes(p.manifest) for p in labelled)
    names = label_names(parents)
    showing_id = [number for number, name in enumerate(names) if name in id_labels] if known else None
    first = parents[0].manifest
    one_corpus = all(
        p.manifest["sources"] == first["sources"]
        and all(p.manifest["contamination"].get(x) == first["contamination"].get(x) for x in ("corpus", "measured_by"))
        for p in parents
    )
    return contamination_by_labels(label, showing_id, first["contamination"] if one_corpus else None)


# ---- thresholds and certificates ------------------------------------------------------------------------------------


def strictest_threshold(parents: Sequence[Parent]) -> CopyThreshold:
    """The lowest copy threshold that any of the sets was built with: what one of them calls a copy is one here."""
    recorded = [build["leak_certificate"]["threshold"] for parent in parents for build in builds(parent.manifest)]
    return CopyThreshold.from_dict(min(recorded, key=lambda threshold: float(threshold["similarity"])))


def leak_certificate(parents: Sequence[Parent], notes: list[str]) -> dict[str, Any]:
    """What holds of every row: the sets that every parent was checked against, and the highest threshold.

    The largest similarity left may be to a set that is no longer named: it is an upper bound.
    """
    certificates = [parent.manifest["leak_certificate"] for parent in parents]
    prints = [{entry["fingerprint"] for entry in certificate["protected"]} for certificate in certificates]
    common = set.intersection(*prints)
    for parent, certificate in zip(parents, certificates, strict=True):
        for entry in certificate["protected"]:
            if entry["fingerprint"] not in common:
                others = [p.name for p, of in zip(parents, prints, strict=True) if entry["fingerprint"] not in of]
                notes.append(
                    f"leaks: no longer certified against {entry['name']}, which {parent.name} was checked against and "
                    f"{', '.join(others)} was not"
                )
    return {
        "protected": [entry for entry in certificates[0]["protected"] if entry["fingerprint"] in common],
        "threshold": max((c["threshold"] for c in certificates), key=lambda t: float(t["similarity"])),
        "largest_similarity_left": max(float(c["largest_similarity_left"]) for c in certificates) if common else None,
    }


def same_scale(parents: Sequence[Parent]) -> bool:
    """Whether ID-ness is on one scale: it is relative to the corpus that was read (`curate.idness`)."""
    scales = [[p.manifest["id_filter"].get(x) for x in ("weights", "spread", "curve")] for p in parents]
    return all(scale == scales[0] for scale in scales)


def id_filter(parents: Sequence[Parent]) -> dict[str, Any]:
    """What holds of every row: the least share of held-out ID images that any parent's filter catches.

    Thresholds and curves on different scales of ID-ness say nothing together, and are left out.
    """
    filters = [parent.manifest["id_filter"] for parent in parents]
    weakest = min(filters, key=lambda found: float(found["recall"]))
    if same_scale(parents):
        return dict(weakest)
    spread = dict.fromkeys(weakest.get("spread") or {})
    return {**weakest, "id_ness": None, "curve": [], **({"spread": spread} if spread else {})}


# ---- settings and sources -------------------------------------------------------------------------------------------


def config(parents: Sequence[Parent], rows: int) -> dict[str, Any]:
    """Settings that all parents share, null for others; all sources; what all protect; the largest shards.

    The ID set is one (`check_comparable`), whatever the parents call it; the name is that of the first that has one.
    """
    recorded = [parent.manifest["config"] for parent in parents]
    names = dict.fromkeys(name for one in recorded for name in one)
    common = {name: recorded[0].get(name) if _all_same([c.get(name) for c in recorded]) else None for name in names}
    protect = [name for name in recorded[0].get("protect", []) if all(name in c.get("protect", []) for c in recorded)]
    return {
        **common,
        "id": next((one["id"] for one in recorded if one.get("id")), None),
        "size": rows,
        "source": union(spec for one in recorded for spec in one.get("source", [])),
        "protect": protect,
        "shard_rows": max(int(one.get("shard_rows", 10_000)) for one in recorded),
    }


def sources(parents: Sequence[Parent]) -> dict[str, Any]:
    """What was read, each entry once; and what no parent could find or needed."""
    entries = union(entry for parent in parents for entry in parent.manifest["sources"])
    read = {entry["name"] for entry in entries}
    found: dict[str, Any] = {"sources": entries}
    for field in ("missing_sources", "unread_sources"):
        found[field] = union(name for p in parents for name in p.manifest[field] if name not in read)
    return found


def labels_with_reasons(parents: Sequence[Parent], field: str) -> dict[str, str]:
    """`excluded_labels` or `id_labels` of all parents."""
    reasons: dict[str, str] = {}
    for parent in parents:
        for name, why in (parent.manifest.get(field) or {}).items():
            reasons.setdefault(name, why)
    return reasons


def union(items: Iterable[Any]) -> list[Any]:
    """The items, each once, in the order in which they come."""
    found: list[Any] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found


def _all_same(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)
