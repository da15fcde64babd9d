"""A manifest in plain words: the sentences and the command of a report."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Mapping
from typing import Any

from curate import quality
from curate.config import BuildConfig
from srood.named_sets import recorded_info


def headlines(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(figure, what it is), the four or so that matter."""
    stages = manifest.get("stages") or []
    certificate = manifest.get("leak_certificate") or {}
    measured = manifest.get("contamination") or {}
    by = " by the sets it was merged from" if _operation(manifest) == "merge" else ""
    lines = [(f"{manifest['rows']:,}", f"rows kept of {stages[0]['seen']:,} read{by}" if stages else "rows kept")]
    if certificate.get("protected"):
        leaks = sum(sum(entry["dropped"].values()) for entry in stages if entry["stage"] == "leaks")
        lines.append((f"{leaks:,}", "leaks dropped"))
        left = certificate.get("largest_similarity_left")
        threshold = (certificate.get("threshold") or {}).get("similarity")
        most = "at most " if manifest.get("derived") else ""
        lines.append((most + _number(left), f"largest leak similarity left; copies begin at {_number(threshold)}"))
    elif manifest.get("derived"):
        lines.append(("not certified", "leaks: no set is one that all its parents were checked against"))
    else:
        lines.append(("not checked", "leaks: nothing was protected"))
    estimated = (measured.get("estimated") or {}).get("kept")
    if measured.get("kept") is not None:
        lines.append((f"{measured['kept']:.2%}", "of the labelled rows kept show an ID class, by their labels"))
    elif estimated:
        interval = _interval([estimated["low"], estimated["high"]])
        lines.append((f"{estimated['point']:.1%}", "of the rows kept show an ID class, by an estimate" + interval))
    else:
        lines.append(("not known", "share of rows kept that show an ID class"))
    return lines


def stages(manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    """Each stage with its rows in, dropped and left, and why, most rows first; as text."""
    found = []
    for entry in manifest.get("stages") or []:
        reasons = sorted(entry["dropped"].items(), key=lambda item: (-item[1], item[0]))
        found.append(
            {
                "stage": entry["stage"],
                "seen": f"{entry['seen']:,}",
                "dropped": f"{sum(entry['dropped'].values()):,}",
                "left": f"{entry['left']:,}",
                "why": ", ".join(f"{reason} {count:,}" for reason, count in reasons),
            }
        )
    return found


def name_of(entry: Mapping[str, Any]) -> str:
    """The name of a set that a manifest records."""
    return str(entry.get("name") or "unknown")


def rows_of(entry: Mapping[str, Any]) -> str:
    """The number of its rows."""
    return f"{entry['rows']:,}" if "rows" in entry else "unknown"


def certificate(manifest: Mapping[str, Any]) -> list[str]:
    """The leak certificate, a paragraph each."""
    found = manifest.get("leak_certificate") or {}
    if not found.get("protected"):
        if manifest.get("derived"):
            return [
                "No protected set is one that every set it was made from was checked against: no statement about leaks "
                "can be made."
            ]
        return ["This set was built with nothing protected: no statement about leaks can be made."]
    threshold, left = found.get("threshold") or {}, found.get("largest_similarity_left")
    stage = next((entry for entry in manifest.get("stages", []) if entry["stage"] == "leaks"), None)
    sets = _listed([f"{name_of(entry)} ({rows_of(entry)} images)" for entry in found["protected"]])
    lines = []
    if stage:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(stage["dropped"].items()))
        dropped = f"{sum(stage['dropped'].values()):,} ({reasons})"
        whose = " when the sets were built that this one was made from" if manifest.get("derived") else ""
        besides = ", or of a set that only some of them were checked against," if whose else ""
        lines.append(
            f"Each of the {stage['seen']:,} rows that came this far{whose} was compared with the images of {sets}. "
            + f"{dropped if reasons else 'None'} showed the same picture as one of them"
            + (f"{besides} and were dropped." if reasons else ".")
        )
    if left is not None:
        most = "at most " if manifest.get("derived") else ""
        lines.append(
            f"None of the {manifest['rows']:,} rows kept is a copy by this check: the largest similarity left is {most}"
            f"{_number(left)}, and two images count as the same picture from {_number(threshold.get('similarity'))}."
        )
    recall = threshold.get("recall") or {}
    if recall:
        worst = min(recall, key=lambda kind: recall[kind])
        lines.append(
            f"How far to trust it: the threshold was calibrated on copies made of {threshold.get('images', 0):,} ID "
            f"images. It finds {sum(recall.values()) / len(recall):.1%} of them, fewest of kind “{worst}” "
            f"({recall[worst]:.1%}), and takes {threshold.get('different', 0):.1%} of those images for a copy of "
            "another one (ID sets repeat themselves, so some of these are right)."
        )
    lines.append(
        "What it does not say: a picture changed more than in the calibration, or another photograph of the same "
        "object, can still be left."
    )
    return lines


def id_filter(manifest: Mapping[str, Any]) -> str:
    """What the ID-class filter did."""
    found = manifest.get("id_filter") or {}
    if not found or not found.get("recall"):
        return "The ID-class filter was off: rows were not dropped for their similarity to ID images."
    what, at = ("an ID-ness", found["id_ness"]) if "id_ness" in found else ("a similarity", found.get("similarity"))
    if at is None:  # merged sets, each with a threshold on a scale of its own
        return (
            f"Embedder: {found.get('embedder')}. Rows were dropped from an ID-ness that at least {found['recall']:.0%} "
            "of held-out ID images reach, on a scale for each of the sets that this one was merged from."
        )
    return (
        f"Embedder: {found.get('embedder')}. A row was dropped from {what} of {_number(at)}, "
        f"which {found['recall']:.0%} of held-out ID images reach."
    )


def contamination(manifest: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, str]]]:
    """Sentences on the share of rows that show an ID class, and every recorded figure by name."""
    found = manifest.get("contamination") or {}
    figures = [(key.replace("_", " "), in_words(value)) for key, value in found.items() if value is not None]
    words = []
    if found.get("measured_by") and found.get("kept") is not None:
        corpus = f", against {found['corpus']:.2%} of the corpus" if found.get("corpus") is not None else ""
        interval = _interval(found.get("kept_interval"))
        words.append(
            f"By their corpus labels, {found['kept']:.2%}{interval} of the labelled rows kept show an ID class{corpus}."
        )
    else:
        words.append("No corpus labels tell which rows show an ID class, so the share was not measured by labels.")
    if estimated := (found.get("estimated") or {}).get("kept"):
        interval = _interval([estimated["low"], estimated["high"]])
        words.append(f"Estimated from ID-ness, without labels: {estimated['point']:.1%}{interval} of the rows kept.")
    elif manifest.get("derived"):
        words.append("The estimates of the sets it was made from are of other rows, and are not repeated here.")
    elif not found.get("measured_by"):
        words.append("ID-ness tells too little here to estimate it; look at the rows nearest to each ID class.")
    return words, figures


def settings(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every recorded setting."""
    found = [(key, in_words(value)) for key, value in sorted((manifest.get("config") or {}).items())]
    sampling = manifest.get("sampling") or {}
    return found + [(f"sampling: {key}".replace("_", " "), in_words(value)) for key, value in sampling.items()]


def command(manifest: Mapping[str, Any], name: str) -> tuple[str, list[str]]:
    """The command that makes this set again, and what it leaves for the reader to fill in.

    A set made from sets has a line for each of these first.
    """
    if not manifest.get("derived"):
        return _build_command(manifest, name)
    lines, notes = _commands(manifest, name, {"": name})
    return "\n".join(lines), notes


def derivation(manifest: Mapping[str, Any]) -> list[str]:
    """From what, and how, a set was made from sets; nothing for one that was built."""
    derived = manifest.get("derived")
    if not derived:
        return []
    parents = [
        f"{parent['file']} ({parent['manifest']['rows']:,} rows, {parent['fingerprint'][:16]})"
        for parent in derived["parents"]
    ]
    made = {"select": "selected from", "merge": "merged from"}.get(derived["operation"], "made from")
    given = {
        key: value for key, value in derived["options"].items() if not (value is None or value is False or value == [])
    }
    return [
        f"{made} {_listed(parents)}; {in_words(given)}",
        *(f"note: {note}" for note in derived.get("notes", ())),
    ]


def _commands(manifest: Mapping[str, Any], name: str, names: dict[str, str]) -> tuple[list[str], list[str]]:
    """The commands that make a set and, before it, those it comes from, each once.

    `names` maps what was named already, a fingerprint or the result, to the name of its file.
    """
    derived = manifest.get("derived")
    if not derived:
        command, notes = _build_command(manifest, name)
        return [command], notes
    lines, notes, words = list[str](), list[str](), ["curate", derived["operation"]]
    for parent in derived["parents"]:
        fingerprint = parent["fingerprint"]
        if fingerprint not in names:
            taken = parent["file"] in names.values()  # then in a folder: shards are called after the file
            names[fingerprint] = f"{fingerprint[:8]}/{parent['file']}" if taken else parent["file"]
            more, remarks = _commands(parent["manifest"], names[fingerprint], names)
            lines += more
            notes += [remark for remark in remarks if remark not in notes]
        words.append(shlex.quote(names[fingerprint]))
    for key, value in derived["options"].items():
        for item in value if isinstance(value, list) else [value]:
            if item is True:
                words.append("--" + key.replace("_", "-"))
            elif item is not None and item is not False:
                words += ["--" + key.replace("_", "-"), shlex.quote(str(item))]
    return [*lines, " ".join([*words, "--out", shlex.quote(name)])], notes


def _build_command(manifest: Mapping[str, Any], name: str) -> tuple[str, list[str]]:
    from curate.commands.building import build

    options = inspect.signature(build).parameters
    config, notes, words = manifest.get("config") or {}, [], ["curate", "build"]
    other = []
    for key, value in config.items():
        if key == "quality":
            words += _quality_options(value)
        elif key in ("max_pixels", "max_bytes"):
            if value is not None and value != getattr(BuildConfig, key):  # defaults, in nearly every set
                words += ["--" + key.replace("_", "-"), f"{value}B" if key == "max_bytes" else str(value)]
        elif key not in options or isinstance(value, dict):
            other.append(f"{key}={value!r}")
        else:
            if key == "embedder" and value == "timm":
                value = (manifest.get("id_filter") or {}).get("embedder", "timm:NAME")
            elif key == "embedder" and value != "thumbnail" and ":" not in str(value):
                value = f"{value}:PATH"
                fingerprint = (manifest.get("id_filter") or {}).get("embedder_fingerprint", "")
                notes.append(f"PATH is the embedder that was used, of fingerprint {fingerprint}.")
            for item in value if isinstance(value, list) else [value]:
                if item is not None and not isinstance(item, bool):
                    words += ["--" + key.replace("_", "-"), shlex.quote(str(item))]
    if license := _given_license(manifest):
        words += ["--source-license", shlex.quote(license)]
    for source in manifest.get("sources") or []:
        if left_out := source.get("excluded_rows"):  # of one source at the most
            words += ["--exclude-indices-base", str(left_out["counted_from"])]
    words += ["--out", shlex.quote(name)]
    if other:
        notes.append(f"Settings that only the Python interface, curate.config.BuildConfig, takes: {', '.join(other)}.")
    notes.append("Local files are recorded without their folders; put these before the names.")
    notes.append("The same inputs, settings and versions give the same bytes, whatever the number of workers.")
    return " ".join(words), notes


def _given_license(manifest: Mapping[str, Any]) -> str | None:
    """The licence of --source-license: of sources whose own is known nowhere, all got the same."""
    for source in manifest.get("sources") or []:
        name, license = name_of(source), source.get("license") or "unknown"
        known = recorded_info(source)
        if license != "unknown" and "/" not in name and (known is None or known.license == "unknown"):
            return str(license)
    return None


def _operation(manifest: Mapping[str, Any]) -> str | None:
    return (manifest.get("derived") or {}).get("operation")


def _interval(ends: list[float] | None) -> str:
    return f" (95 % interval {ends[0]:.2%} to {ends[1]:.2%})" if ends else ""


def _quality_options(limits: Mapping[str, Any] | None) -> list[str]:
    """The options that give the recorded limits, see `curate.quality.recorded`."""
    level, upscale = quality.options(limits)
    return ["--quality", level] + ([] if upscale is None else ["--max-upscale", str(upscale)])


def _listed(items: list[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}".rstrip("0").rstrip(".")


def in_short(recorded: Any, most: int = 32) -> str:
    """Any recorded value in at most so many characters; the beginning of longer ones, and of hashes."""
    text = "" if recorded is None else in_words(recorded)
    if re.fullmatch("[0-9a-f]{40,64}", text):
        return text[:16]
    return text if len(text) <= most else text[: most - 3] + "..."


def in_words(recorded: Any) -> str:
    """Any recorded value as a line of text."""
    if isinstance(recorded, float):
        return f"{recorded:.6g}"
    if isinstance(recorded, int) and not isinstance(recorded, bool):
        return f"{recorded:,}"
    if isinstance(recorded, list):
        return ", ".join(in_words(item) for item in recorded) or "none"
    if isinstance(recorded, dict):
        return "; ".join(f"{key}: {in_words(item)}" for key, item in recorded.items()) or "none"
    return "not set" if recorded is None else str(recorded)
