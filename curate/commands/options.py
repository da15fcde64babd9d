"""Options and output that several commands share."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from curate.outputs import BuildResult

File = Annotated[Path, typer.Argument(help="Manifest of an outlier set, such as manifests/mini.h5.")]
SET = "mini.h5, or hf://owner/name on the Hub (hf://owner/name@REVISION/mini.h5)"
AnySet = Annotated[str, typer.Argument(metavar="FILE", help=f"Manifest of an outlier set: {SET}.", show_default=False)]
SAME_COMMAND = "what is done is kept, and the same command goes on from here"
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def print_json(value: Any) -> None:
    """Print a JSON document."""
    print(json.dumps(value, indent=2))


def print_set(result: BuildResult, as_json: bool) -> None:
    """Print what came out of a build, or of making a set from sets."""
    from curate.tables import print_build

    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        print_json({"out": str(result.out), "written": result.written, "manifest": result.manifest})
    else:
        print_build(result)
