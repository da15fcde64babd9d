"""YAML that others wrote: plain values alone (no tags), and no more of them than the file has."""

from __future__ import annotations

from typing import Any

import yaml

MAX_CHARACTERS = 64 << 20
MAX_VALUES = 1_000_000  # of a file with aliases, each of which stands for what it names
MAX_DEPTH = 500  # of collections in each other: PyYAML's C code calls itself for each, and older ones have no bound
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse(text: str) -> Any:
    """The value of a YAML document.

    Raises:
        yaml.YAMLError: it is none, has tags of Python's, is nested too deeply or too large, or its aliases stand for
            more than a million values, as in the "billion laughs", or for themselves.
    """
    if len(text) > MAX_CHARACTERS:
        raise yaml.YAMLError(f"is larger than {MAX_CHARACTERS:,} characters")
    try:
        if "*" in text or len(text) > MAX_DEPTH:
            _check_structure(text)
        return yaml.load(text, Loader=LOADER)  # nosec B506  # a safe loader either way
    except RecursionError as error:
        raise yaml.YAMLError("is nested too deeply") from error
    except (ValueError, OverflowError, AttributeError) as error:  # a date or a number that cannot be one
        raise yaml.YAMLError(str(error)) from error


def _check_structure(text: str) -> None:
    """Follow the nesting, and count values as if every alias were written out, without doing so."""
    named: dict[str, int] = {}  # values that an anchor stands for
    open_nodes: list[tuple[str | None, int]] = []  # collections that have begun: anchor, values before
    total = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in named:  # of a collection that has not ended yet, or of nothing
                raise yaml.YAMLError(f"the alias {event.anchor} is within what it stands for")
            total += named[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            named.pop(str(event.anchor), None)
            open_nodes.append((event.anchor, total))
            if len(open_nodes) > MAX_DEPTH:
                raise yaml.YAMLError("is nested too deeply")
            total += 1
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                named[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                named[anchor] = total - before
        if total > MAX_VALUES and "*" in text:
            raise yaml.YAMLError(f"its aliases stand for more than {MAX_VALUES:,} values")
