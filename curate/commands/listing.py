"""`curate exclusions` and `sources`: what is known before a build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curate.commands.options import Json, print_json


def exclusions(
    id: Annotated[str, typer.Argument(metavar="ID", help="ID set: a named set, or any image spec with class names.")],
    corpus: Annotated[
        str | None, typer.Option(help="Also say which labels of this corpus would be excluded, with their rows.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write them as a file to edit, for `curate build --exclude-labels FILE`.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print which corpus labels --exclude-labels auto drops for an ID set, and why."""
    from curate.exclusions import explain, write
    from curate.tables import print_exclusions

    found = explain(id, corpus)
    text = found.pop("text")
    if out is not None:
        write(out, text)
    if as_json:
        print_json(found)
    else:
        print_exclusions(found, out)


def sources(as_json: Json = False) -> None:
    """List named sources and image sets, and where each would be read from."""
    from curate.sources import describe_named
    from curate.tables import print_sources

    entries = describe_named()
    if as_json:
        print_json(entries)
    else:
        print_sources(entries)
