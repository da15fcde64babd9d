"""What may be passed on: a set's sources, their licences, and the licence of the set itself.

This is no legal advice: it stops the clear cases and asks a person about the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from srood.errors import InputError
from srood.manifests import names
from srood.named_sets import DatasetInfo, dataset_info, recorded_info

Allowed = Literal["yes", "no", "unknown"]

# identifiers of https://huggingface.co/docs/hub/repositories-licenses that let changed copies be passed on (images are
# resized here); of what is not listed nothing is known
PERMITTED = re.compile(
    r"(apache-2\.0|mit|bsd(-[23]-clause(-clear)?)?|cc0-1\.0|pddl|unlicense|wtfpl|isc|zlib|odc-by|odbl|gfdl|afl-3\.0"
    r"|ecl-2\.0|artistic-2\.0|cdla-(permissive-[12]\.0|sharing-1\.0)|cc-by(-nc)?(-sa)?-[1-4]\.0)"
)
FORBIDDEN = re.compile(
    r"\bnd\b|no[- ]?deriv|imagenet|fair[- ]use|tiny[- ]images|all[- ]rights[- ]reserved"
    r"|not? (be )?(redistribut|passed on)|non[- ]?redistribut|redistribution (is )?(prohibited|forbidden|not)",
    re.I,
)
WITHDRAWN = re.compile(
    r"tiny_images|300k_random_images", re.I
)  # 80 Million Tiny Images, and a part that is passed around


@dataclass(frozen=True)
class SourceRights:
    """A source of a set: its `license` as recorded, and whether its images may be passed on, and by what we know it."""

    name: str
    rows: int
    license: str
    citation: str
    revision: str
    homepage: str
    allowed: Allowed
    why: str


def rights(manifest: Mapping[str, Any]) -> list[SourceRights]:
    """The sources of a set with what is known of the right to pass their images on, in the order of the manifest."""
    return [_source(entry) for entry in manifest["sources"]]


def check_rights(sources: Sequence[SourceRights], confirmed: bool = False) -> None:
    """Check that the images of every source may be passed on.

    Args:
        sources: of the set.
        confirmed: a person has made sure of it where nothing is known.

    Raises:
        InputError: a source forbids it, or nothing is known and nobody confirmed it.
    """
    if forbidden := [source for source in sources if source.allowed == "no"]:
        listed = "; ".join(f"{source.name} ({source.why})" for source in forbidden)
        raise InputError(
            f"images of these sources may not be passed on: {listed}; give --index-only to publish keys, hashes and "
            "the recipe instead of pixels, or build the set without them"
        )
    if not confirmed and (unknown := [source for source in sources if source.allowed == "unknown"]):
        listed = "; ".join(f"{source.name} ({source.why})" for source in unknown)
        raise InputError(
            f"it is not known whether images of these sources may be passed on: {listed}; make sure of it and give "
            "--rights-confirmed, give --index-only, or build the set again with --source-license"
        )


def set_license(sources: Sequence[SourceRights]) -> str | list[str]:
    """The licence of a set as cards name it: that of its sources where it is one of the Hub's, else ``other``.

    Sources under several of the Hub's licences give a list; each image stays under its own.
    """
    found = sorted({part for source in sources for part in _parts(source.license)})
    if not found or not all(PERMITTED.fullmatch(license) for license in found):
        return "other"
    return found[0] if len(found) == 1 else found


def _source(entry: Mapping[str, Any]) -> SourceRights:
    name, license = str(entry["name"]), str(entry.get("license") or "unknown")
    known = _known(entry)
    allowed: Allowed
    if WITHDRAWN.search(name):
        allowed, why = "no", "80 Million Tiny Images was withdrawn; its makers asked that copies be deleted"
    elif known is not None:
        allowed = known.redistribution if known.redistribution in ("yes", "no") else "unknown"  # type: ignore[assignment]
        why = f"licence: {known.license}"
    elif all(PERMITTED.fullmatch(part) for part in _parts(license)):
        allowed, why = "yes", f"licence: {license}"
    elif FORBIDDEN.search(license):
        allowed, why = "no", f"licence: {license}"
    else:
        allowed, why = "unknown", f"licence: {license}"
    if known is None and (same := dataset_info(name.partition(":")[0])) is not None:
        why += f"; whether it is {same.title} (licence: {same.license}) is not known, for it was a local file or folder"
    return SourceRights(
        name=name,
        rows=int(entry.get("rows") or 0),
        license=license,
        citation=str(entry.get("citation") or (known.citation if known else "")),
        revision=str(entry.get("revision") or "unknown"),
        homepage=known.homepage if known else "",
        allowed=allowed,
        why=why,
    )


def _parts(license: str) -> list[str]:
    """A source may have several licences, as an outlier set that is a source has."""
    return [part.lower() for part in re.split(r"\s*[;,]\s*", license)]


def _known(entry: Mapping[str, Any]) -> DatasetInfo | None:
    """The named set that a source is, by its name or by its repository on the Hub."""
    if (known := recorded_info(entry)) is not None:
        return known
    repo = str(entry["name"]).partition(":")[0]
    every = (dataset_info(name) for name in names("datasets"))
    return next((info for info in every if info and info.hub_repo == repo), None)
