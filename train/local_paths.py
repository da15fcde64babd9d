"""Paths of this machine in what leaves it, published or exported: of each only the last component is kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

CLASS_NAMES = ("class_names", "classes", "labels")  # keys of names that may look like paths and are none

PATHS = ("id", "name", "spec", "file", "path", "folder", "checkpoint", "outliers", "weights", "start", "dataset", "ood")

_ADDRESS = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+://|timm:")
_ABSOLUTE = re.compile(r"(?:file://|~[\w.-]*[\\/]|/(?=[^\s/])|[A-Za-z]:[\\/]|\\\\)")
_PART = r"[^\s\\/:,;'\"()\[\]]+"
_WITHIN_TEXT = re.compile(rf"(?<![\w:/.~-])(?:file://)?(?:~[\w.-]*[\\/]|/|[A-Za-z]:[\\/])(?:{_PART}[\\/])+(?:{_PART})?")


def last_component(path: str) -> str:
    """``mini.h5`` of ``/home/me/mini.h5`` or ``C:\\\\data\\\\mini.h5``."""
    return re.split(r"[\\/]+", path.rstrip("\\/"))[-1]


def shorten(text: str, is_path: bool = False, folders: Sequence[str] = ()) -> str:
    """A text in which no path of this machine is left.

    A text that is a path, absolute or with a separator and without spaces, becomes its last component; so do absolute
    paths within a longer text. Addresses (``hf://owner/name``, ``https://...``, ``timm:NAME``) stay, within a text too.

    Args:
        text: any
        is_path: it is a path wherever it holds a separator
        folders: absolute paths to look for within the text, longest first: one with spaces has no end of its own there
    """
    if _ADDRESS.match(text) and not re.search(r"\s", text):
        return text
    if _ABSOLUTE.match(text) or (re.search(r"[\\/]", text) and (is_path or not re.search(r"\s", text))):
        return last_component(text)
    for folder in folders:
        text = re.sub(rf"{re.escape(folder)}(?:[\\/]{_PART})*[\\/]?", lambda match: last_component(match[0]), text)
    return _WITHIN_TEXT.sub(lambda match: last_component(match[0]), text)


def without_paths(
    document: Any, replaced: Mapping[str, str] | None = None, folders: Sequence[str] = (), key: str = ""
) -> Any:
    """A JSON or YAML document with every text shortened, keys too; class names stay as they are.

    Args:
        document: dicts, lists and plain values
        replaced: texts that become others, wherever they are a whole value or key
        folders: as `shorten`
        key: what the document is the value of
    """
    if isinstance(document, str):
        return (replaced or {}).get(document) or shorten(document, key in PATHS, folders)
    if isinstance(document, list):
        return [without_paths(value, replaced, folders, key) for value in document]
    if isinstance(document, dict):
        names = short_names([str(name) for name in document], key in PATHS) | dict(replaced or {})
        return {
            names[str(name)]: value if name in CLASS_NAMES else without_paths(value, replaced, folders, str(name))
            for name, value in document.items()
        }
    return document


def folders_in(documents: Iterable[Any]) -> list[str]:
    """Where the absolute paths in some documents lie, the working folder and the home folder; longest first."""
    found = {str(Path.cwd()), str(Path.home())}

    def collect(value: Any) -> None:
        if isinstance(value, str) and _ABSOLUTE.match(value) and not _ADDRESS.match(value):
            found.add(re.sub(r"[\\/]+[^\\/]*$", "", value.rstrip("\\/")))
        elif isinstance(value, dict):
            for name, inner in value.items():
                collect(name)
                if name not in CLASS_NAMES:
                    collect(inner)
        elif isinstance(value, list):
            for inner in value:
                collect(inner)

    for document in documents:
        collect(document)
    return sorted((folder for folder in found if len(folder) > 2), key=len, reverse=True)


def short_names(names: list[str], are_paths: bool = False) -> dict[str, str]:
    """Each name shortened; where two become the same, the later is numbered: ``test``, ``test (2)``."""
    result: dict[str, str] = {}
    taken = {name for name in names if shorten(name, are_paths) == name}
    for name in names:
        short = base = shorten(name, are_paths)
        number = 1
        while short != name and short in taken:
            number += 1
            short = f"{base} ({number})"
        taken.add(short)
        result[name] = short
    return result
