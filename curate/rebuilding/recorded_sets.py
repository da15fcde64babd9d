"""Image sets found again as a manifest records them: by name, at the commit they were read at, known by fingerprint.

So what is found is known to be what was read, wherever it lies now: a named set may come from ``$SROOD_DATA`` or from
the Hub, a local file from any folder that is looked in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from srood import datasets
from srood.datasets import ImageSource
from srood.errors import InputError

SHOWN = 12  # hex digits of a fingerprint in messages

Record = Mapping[str, Any]  # of a set: name, fingerprint, and where they are known rows, revision, origin, license
Opening = Callable[[], ImageSource]


@dataclass(frozen=True)
class Found:
    """An input beside its record; `recorded` is empty where nothing is, `problem` where both agree."""

    role: str
    name: str
    place: str = ""
    fingerprint: str = ""
    recorded: str = ""
    problem: str = ""


def open_set(
    role: str, record: Record, look_in: Sequence[Path], found: list[Found], stream: bool = False
) -> ImageSource | None:
    """The set with the recorded fingerprint, or None; what was found, or why not, is added to `found`."""
    return _first_that_agrees(role, record, _openings(record, look_in, stream), look_in, found)


def open_id(
    name: str, records: Sequence[Record], look_in: Sequence[Path], found: list[Found]
) -> tuple[str, list[ImageSource]]:
    """The ID train and, where there are any, test images; none where one was not found.

    Args:
        name: the ID set as it is recorded, a name or a path's last component.
        records: of the train and the test images; empty where nothing is recorded.

    Returns:
        the spec of the ID set that is here, and its sources.
    """
    if datasets.dataset_info(name) is not None and not (records and is_local(records[0])):
        records = records or [{"name": spec} for spec in datasets.id_specs(name) if spec]
        opened = [open_set("ID set", record, look_in, found) for record in records]
        return name, [source for source in opened if source] if all(opened) else []
    attempts = []
    for path in local_paths(name, look_in):
        entries: list[Found] = []
        sources = _open_local_id(path, records, entries)
        attempts.append((path, sources, entries))
        if sources:
            found += entries
            return str(path), sources
    found += attempts[0][2] if attempts else [Found("ID set", name, problem=not_found("ID set", name, look_in))]
    return name, []


def is_local(record: Record) -> bool:
    """Whether a set was a file or folder. Names of the Hub's repositories have a slash, those of named sets a colon."""
    name = str(record["name"])
    named = ":" in name and datasets.dataset_info(name.partition(":")[0]) is not None
    return str(record.get("origin", "")).startswith("a local ") or not ("/" in name or named)


def local_paths(name: str, look_in: Sequence[Path]) -> Iterator[Path]:
    """Where a local file or folder of this name lies, as absolute paths, so that none is taken for a named set."""
    if name in ("", "..") or Path(name).name != name:
        return  # a manifest from elsewhere does not lead out of these folders
    for folder in (*look_in, Path()):
        path = Path(os.path.abspath(folder / name))
        if path.exists():
            yield path


def not_found(what: str, name: str, look_in: Sequence[Path]) -> str:
    """The message for a local file or folder that is nowhere."""
    folders = ", ".join(["the working folder", *map(str, look_in)])
    return f"{what} {name}: is not in {folders}; give --look-in the folder that holds it"


def unlike(fingerprint: str, recorded: str) -> str:
    """Two fingerprints, for messages."""
    return f"(fingerprint {fingerprint[:SHOWN]}..., recorded {recorded[:SHOWN]}...)"


def _openings(record: Record, look_in: Sequence[Path], stream: bool) -> Iterator[Opening]:
    """The places where the rows of a record may be, in order."""
    name = str(record["name"])
    commit = "" if record.get("revision") in (None, "unknown") else str(record["revision"])
    if is_local(record):
        for path in local_paths(name, look_in):
            yield _opening(path, stream)
    elif "/" in name:
        repo, _, split = name.partition(":")
        address = f"hf://{repo}" + (f"@{commit}" if commit else "") + (f":{split}" if split else "")
        yield lambda: datasets.resolve(address, stream)
    else:
        info = datasets.dataset_info(name.partition(":")[0])
        assert info is not None
        if datasets.place(name).startswith("$SROOD_DATA"):
            yield lambda: datasets.resolve(name, stream)
        yield lambda: datasets.resolve(name, stream, commit or info.hub_revision)


def _opening(path: str | Path, stream: bool = False) -> Opening:
    return lambda: datasets.resolve(str(path), stream)


def _first_that_agrees(
    role: str, record: Record, openings: Iterable[Opening], look_in: Sequence[Path], found: list[Found]
) -> ImageSource | None:
    name, recorded = str(record["name"]), str(record.get("fingerprint", ""))
    others: list[Found] = []
    errors: list[str] = []
    for opening in openings:
        try:
            source = opening()
            fingerprint = source.fingerprint()
        except InputError as error:
            errors.append(str(error))
            continue
        if not recorded or fingerprint == recorded:
            found.append(Found(role, name, source.origin, fingerprint, recorded))
            return _as_recorded(source, record)
        problem = f"{role} {name}: its rows are not those that were read {unlike(fingerprint, recorded)}"
        others.append(Found(role, name, source.origin, fingerprint, recorded, problem))
    problem = f"{role} {name}: {' | '.join(errors)}" if errors else not_found(role, name, look_in)
    found += others[:1] or [Found(role, name, "", "", recorded, problem)]
    return None


def _as_recorded(source: ImageSource, record: Record) -> ImageSource:
    """The same rows, with the origin, licence and commit that the manifest holds: it describes where they came from."""
    kept = {name: str(record[name]) for name in ("origin", "license", "citation") if name in record}
    if "revision" in record:
        kept["revision"] = "" if record["revision"] == "unknown" else str(record["revision"])
    return replace(source, **kept)  # type: ignore[arg-type]


def _open_local_id(path: Path, records: Sequence[Record], found: list[Found]) -> list[ImageSource]:
    specs = [spec for spec in datasets.id_specs(str(path)) if spec]
    known = list(records) or [{"name": Path(spec).name} for spec in specs]
    if len(known) != len(specs):
        has, had = (" and ".join(names) for names in ([Path(s).name for s in specs], [str(r["name"]) for r in known]))
        found.append(Found("ID set", path.name, "local files", problem=f"ID set {path}: has {has}, recorded {had}"))
        return []
    pairs = zip(known, specs, strict=True)
    opened = [_first_that_agrees("ID set", record, [_opening(spec)], (), found) for record, spec in pairs]
    return [source for source in opened if source] if all(opened) else []
