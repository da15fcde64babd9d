"""A report on an outlier set: one HTML page that needs no network and no other file.

Everything shown comes from the set itself (manifest, shards, evidence). Keys, labels and names are text of strangers:
the template escapes them, and the page's content security policy allows neither scripts nor requests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup

from curate import charts, prose
from curate.evidence import CLEAREST, DOUBTFUL, EDGES, ID, ID_NESS, LEAK, LEFT, PAIRS, Evidence, Shown, read_evidence
from curate.sheets import Sheet, Sheets, Tile, drawn_rows
from srood.errors import InputError
from srood.files import write_text
from srood.outliers import OutlierSet

KEPT_SHOWN = 48
DROPPED_SHOWN = 400  # over all stages and reasons, but at least DROPPED_LEAST of each
DROPPED_LEAST = 4
NEAREST_SHOWN = 160  # over all ID classes
CLASSES_SHOWN = 40
CLUSTERS_SHOWN, CLUSTER_ROWS = 16, 6
WNID = re.compile(r"^n\d{8}\s+")


def write_report(file: Path, out: Path) -> Path:
    """Write the report on the outlier set whose manifest is `file` to `out`.

    Raises:
        InputError: `file` is no outlier set or was altered, or `out` cannot be written.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {out}: must end in .html")
    page = render(OutlierSet.open(file))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, page, errors="backslashreplace")
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from error
    return out


def render(opened: OutlierSet) -> str:
    """The page as text. The same set gives the same page."""
    manifest = opened.manifest
    evidence = read_evidence(opened.path, manifest)
    sheets = Sheets()
    names = manifest.get("label_names") or []
    values = {
        "m": manifest,
        "file": opened.path.name,
        "settings": prose.settings(manifest),
        "command": prose.command(manifest, opened.path.name),
        "derivation": prose.derivation(manifest),
        "certificate": prose.certificate(manifest),
        "id_words": prose.id_filter(manifest),
        "contamination": prose.contamination(manifest),
        "headlines": prose.headlines(manifest),
        "has_evidence": evidence is not None,
        "most": max((entry["seen"] for entry in manifest.get("stages", [])), default=1) or 1,
        "kept": sheets.add(_tiles_of(opened, drawn_rows(opened.num_rows, KEPT_SHOWN), names)),
        "nearest": _nearest(opened, names, sheets),
        "classes": len(np.unique(opened.read("id_class"))),
        "clusters": _clusters(opened, names, sheets),
        "dropped": _dropped(manifest, evidence, names, sheets),
        "pairs": _pairs(evidence, names, sheets),
        "charts": _charts(manifest, evidence),
    }
    sheets.draw()
    environment = Environment(
        loader=PackageLoader("curate"),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["words"] = prose.in_words
    environment.filters["thousands"] = lambda value: f"{int(value):,}"
    sprites = Markup("\n").join(_rule(sheet) for sheet in sheets.all if sheet.uri)
    return environment.get_template("report.html").render(sprites=sprites, **values).lstrip()


def _rule(sheet: Sheet) -> Markup:
    size = f"{100 * sheet.columns}% {100 * sheet.rows}%"
    # no text of strangers is in it
    return Markup(f".{sheet.name} .pic{{background-image:url({sheet.uri});background-size:{size}}}")  # nosec B704


# ---- pictures -------------------------------------------------------------------------------------------------------


def _nearest(opened: OutlierSet, names: list[str], sheets: Sheets) -> list[dict[str, Any]]:
    """The kept rows most similar to each ID class, the classes by their most similar row."""
    nearest, similarity = opened.read("id_class"), opened.read("id_similarity")
    classes = (opened.manifest.get("id_filter") or {}).get("id_class_names") or []
    present, rows_of = np.unique(nearest, return_counts=True)
    each = int(np.clip(NEAREST_SHOWN // max(1, len(present)), 4, 12))
    found = []
    for number, count in zip(present.tolist(), rows_of.tolist(), strict=True):
        rows = np.flatnonzero(nearest == number)
        rows = rows[np.argsort(-similarity[rows], kind="stable")[:each]]
        name = classes[number] if 0 <= number < len(classes) else f"class {number}"
        found.append((float(similarity[rows[0]]), {"name": name, "rows": count, "chosen": rows}))
    found.sort(key=lambda entry: -entry[0])
    shown = [entry for _, entry in found[:CLASSES_SHOWN]]
    for entry in shown:
        entry["sheet"] = sheets.add(_tiles_of(opened, entry.pop("chosen"), names, similarity))
    return shown


def _clusters(opened: OutlierSet, names: list[str], sheets: Sheets) -> dict[str, Any] | None:
    """The largest clusters, with rows of each in the order of the set; None where the set has no such column."""
    try:
        cluster = opened.read("cluster")
    except InputError:
        return None
    numbers, sizes = np.unique(cluster[cluster >= 0], return_counts=True)
    if not len(numbers):
        return None
    order = np.lexsort((numbers, -sizes))
    shown = []
    for place in order[:CLUSTERS_SHOWN]:
        rows = np.flatnonzero(cluster == numbers[place])[:CLUSTER_ROWS]
        entry = {"number": int(numbers[place]), "rows": int(sizes[place])}
        shown.append({**entry, "sheet": sheets.add(_tiles_of(opened, rows, names))})
    summary = {"count": len(numbers), "smallest": int(sizes.min()), "median": float(np.median(sizes))}
    return {"shown": shown, "largest": int(sizes.max()), **summary}


def _tiles_of(
    opened: OutlierSet, rows: np.ndarray, names: list[str], similarity: np.ndarray | None = None
) -> list[Tile]:
    images, keys, labels = opened.read_images(rows), opened.read("key", rows), opened.read("label", rows)
    notes = ["" if similarity is None else f"{similarity[row]:.3f}" for row in rows]
    text = [key.decode("utf-8", "backslashreplace") for key in keys.tolist()]
    return [
        Tile(image, key, _label(int(label), names), note)
        for image, key, label, note in zip(images, text, labels, notes, strict=True)
    ]


def _shown_tile(row: Shown, names: list[str]) -> Tile:
    note = "" if np.isnan(row.similarity) else f"{row.similarity:.3f}"
    return Tile(row.image, row.key, _label(row.label, names), note, row.partner, row.partner_key)


def _label(number: int, names: list[str]) -> str:
    return WNID.sub("", names[number]) if 0 <= number < len(names) else ""


def _dropped(
    manifest: Mapping[str, Any], evidence: Evidence | None, names: list[str], sheets: Sheets
) -> list[dict[str, Any]]:
    """For each stage that dropped rows its reasons, most rows first, each with a sheet or None."""
    stages = []
    count = sum(len(entry["dropped"]) for entry in manifest.get("stages", []))
    each = max(DROPPED_LEAST, DROPPED_SHOWN // max(1, count))
    for entry in manifest.get("stages", []):
        reasons = []
        for reason, count in sorted(entry["dropped"].items(), key=lambda item: (-item[1], item[0])):
            rows = evidence.groups.get((entry["stage"], reason)) if evidence else None
            sheet = sheets.add([_shown_tile(row, names) for row in rows[:each]]) if rows else None
            reasons.append({"reason": reason, "count": count, "sheet": sheet})
        if reasons:
            stages.append({"stage": entry["stage"], "count": sum(entry["dropped"].values()), "reasons": reasons})
    return stages


def _pairs(evidence: Evidence | None, names: list[str], sheets: Sheets) -> list[dict[str, Any]]:
    """The leak pairs around the threshold."""
    found = []
    for reason, title in (
        (LEFT, "Closest pairs among the kept rows, just below the threshold"),
        (DOUBTFUL, "Most doubtful pairs that were dropped, just above the threshold"),
        (CLEAREST, "Most similar pairs that were dropped"),
    ):
        rows = evidence.groups.get((PAIRS, reason)) if evidence else None
        if rows:
            tiles = [_shown_tile(row, names) for row in rows]
            if reason == CLEAREST and {row.key for row in rows} <= _keys(evidence, DOUBTFUL):
                continue  # so few were dropped that both are the same pairs
            found.append({"title": title, "sheet": sheets.add(tiles)})
    return found


def _keys(evidence: Evidence | None, reason: str) -> set[str]:
    return {row.key for row in evidence.groups.get((PAIRS, reason), ())} if evidence else set()


# ---- charts ---------------------------------------------------------------------------------------------------------


def _charts(manifest: Mapping[str, Any], evidence: Evidence | None) -> dict[str, Markup]:
    found: dict[str, Markup] = {}
    certificate, id_filter = manifest.get("leak_certificate") or {}, manifest.get("id_filter") or {}
    copies = certificate.get("threshold") or {}
    on = bool(id_filter.get("recall"))
    held_out, all_three = "held-out ID images", ("--other", "--kept", "--dropped")

    stored = evidence.histograms if evidence else {}

    def histograms(
        name: str, of: str, which: tuple[str, ...], threshold: float | None, title: str, colours: tuple[str, ...]
    ) -> None:
        panels = {rows: stored[f"{of}, {rows}"] for rows in which if f"{of}, {rows}" in stored}
        if any(counts.any() for counts in panels.values()):
            found[name] = charts.histograms(
                panels,
                EDGES[of],
                threshold,
                title,
                title[0].lower() + title[1:] if title[1].islower() else title,
                colours,
            )

    if certificate.get("protected"):
        title = "Similarity to the nearest protected image"
        histograms("leaks", LEAK, ("kept", "dropped"), copies.get("similarity"), title, ("--kept", "--dropped"))
    which = (held_out, "kept", "dropped")
    histograms("id_ness", ID_NESS, which, id_filter.get("id_ness") if on else None, "ID-ness", all_three)
    similarity = id_filter.get("similarity") if on else None
    histograms("id", ID, which, similarity, "Similarity to the nearest ID training image", all_three)

    curve = copies.get("curve") or {}
    if {"similarity", "copies", "different"} <= set(curve) and len(curve["similarity"]) > 1:
        shares = {"synthetic copies": curve["copies"], "different images": curve["different"]}
        title = "Share of images at or above each similarity"
        colours = ("--kept", "--dropped")
        found["copies"] = charts.curves(
            curve["similarity"], shares, copies.get("similarity"), title, "similarity", colours
        )
    points = [(at, share) for share, at in id_filter.get("curve") or [] if share > 0 and at is not None]
    if len(points) > 1:
        points.sort()
        by = "id_ness" if "id_ness" in id_filter else "similarity"
        caught = {"held-out ID images": [share for _, share in points]}
        title, axis = "Share of held-out ID images caught at each threshold", "ID-ness" if by == "id_ness" else by
        threshold = id_filter.get(by) if on else None
        found["recall"] = charts.curves([at for at, _ in points], caught, threshold, title, axis, ("--other",))
    return found
