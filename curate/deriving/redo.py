"""The same operation once more, from what a manifest says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from curate.deriving.merge import MergeConfig, merge
from curate.deriving.select import SelectConfig, select
from srood.errors import InputError


def redo(derived: Mapping[str, Any], parents: Sequence[Path], out: Path) -> Path:
    """Make a set again from its parents, and return `out`.

    Given the same parents, the shards have the same bytes; the manifest too, if `out` and the parents have the file
    names that they had.

    Args:
        derived: the manifest's field of this name.
        parents: the sets it was made from, in the order of `derived["parents"]`.

    Raises:
        InputError: an operation or option that this srood does not know, another number of parents, or what `select`
            and `merge` raise.
    """
    operation, recorded = derived.get("operation"), derived.get("parents") or ()
    if len(parents) != len(recorded):
        raise InputError(f"{out}: is made from {len(recorded)} sets, {len(parents)} are given")
    options: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in (derived.get("options") or {}).items()
    }
    known = {"select": SelectConfig, "merge": MergeConfig}.get(str(operation))
    if known is None or not set(options) <= {field.name for field in fields(known)}:
        made = f"{operation} with {', '.join(sorted(options))}"
        raise InputError(f"{out}: was made by {made}; use the srood that made it")
    if known is MergeConfig:
        return merge(MergeConfig(files=tuple(parents), out=out, **options)).out
    return select(SelectConfig(file=parents[0], out=out, **options)).out
