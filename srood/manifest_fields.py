"""What the fields of an outlier set's manifest are, so far as something reads them (docs/outlier-set.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_NUMBER = (int, float)
_SOURCE = {"name": str, "rows": int, "license": str, "citation": str, "revision": str, "fingerprint": str}
_ID_SET = {"name": str, "rows": int, "revision": str, "fingerprint": str}

# a type or several; [what each entry is]; {name: what it is} of names that may be absent; {str: ...} for any name
FIELDS: Mapping[Any, Any] = {
    "rows": int,
    "requested_rows": int,
    "recipe": str,
    "config": {"image_size": int},
    "sources": [_SOURCE],
    "missing_sources": list,
    "unread_sources": list,
    "label_names": [str],
    "excluded_labels": {str: str},
    "id_labels": {str: str},
    "stages": [{"stage": str, "seen": int, "dropped": {str: int}, "left": int}],
    "near_duplicates": (dict, type(None)),
    "sampling": dict,
    "leak_certificate": {"protected": [_ID_SET], "threshold": dict, "largest_similarity_left": (*_NUMBER, type(None))},
    "id_filter": {"embedder": str, "id_sets": [_ID_SET], "id_class_names": (list, type(None)), "recall": _NUMBER},
    "contamination": dict,
    "derived": {
        "operation": str,
        "options": dict,
        "notes": list,
        "parents": [{"file": str, "fingerprint": str, "shards": [str], "manifest": dict}],
    },
    "versions": {str: str},
}
_NEEDED = {"stage", "seen", "dropped", "left", "file", "manifest", "parents", "operation"}  # where their entry is


def lacking(document: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Of fields by dotted names, such as ``sources.name``, those that a manifest, or an entry of a list, lacks."""
    return [name for name in names if not _has(document, name.split("."))]


def _has(value: Any, path: list[str]) -> bool:
    if isinstance(value, list):
        return all(_has(entry, path) for entry in value)
    return not path or (isinstance(value, Mapping) and path[0] in value and _has(value[path[0]], path[1:]))


def problem(value: Any, expected: Any = FIELDS, where: str = "manifest") -> str:
    """What of a manifest is not as it should be; empty where nothing is. What is not known is passed over."""
    if isinstance(expected, list):
        if not isinstance(value, list):
            return f"{where} is no list"
        found = (problem(entry, expected[0], f"{where}[{number}]") for number, entry in enumerate(value))
        return next(filter(None, found), "")
    if isinstance(expected, Mapping):
        if not isinstance(value, dict):
            return f"{where} is no object"
        if str in expected:
            found = (problem(entry, expected[str], f"{where}.{name}") for name, entry in value.items())
            return next(filter(None, found), "")
        if missing := [name for name in expected if name in _NEEDED and name not in value]:
            return f"{where} has no {missing[0]}"
        found = (problem(value[name], kind, f"{where}.{name}") for name, kind in expected.items() if name in value)
        return next(filter(None, found), "")
    kinds = expected if isinstance(expected, tuple) else (expected,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        return f"{where} is {value if isinstance(value, bool | None) else type(value).__name__}"
    return ""
