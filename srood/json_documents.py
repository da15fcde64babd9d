"""JSON that others wrote, read strictly: what two readers could read in two ways is no document."""

from __future__ import annotations

import json
from typing import Any


def parse(text: str | bytes) -> Any:
    """The value of a JSON document.

    Raises:
        ValueError: it is none, holds NaN or Infinity or a key twice, or is nested deeper than Python recurses.
    """
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_without_repeats)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found
