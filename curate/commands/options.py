"""Options and output that several commands share."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srood import commands

if TYPE_CHECKING:
    from curate.outputs import BuildResult
    from srood.images import Limits

File = Annotated[Path, typer.Argument(help="Manifest of an outlier set, such as manifests/mini.h5.")]
SET = "mini.h5, or hf://owner/name on the Hub (hf://owner/name@REVISION/mini.h5)"
AnySet = Annotated[str, typer.Argument(metavar="FILE", help=f"Manifest of an outlier set: {SET}.", show_default=False)]
SAME_COMMAND = "what is done is kept, and the same command goes on from here"
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


MaxPixels = Annotated[
    str | None,
    typer.Option(help="Images of more pixels are not decoded: 20M, 500k; by default 89,478,485, at most twice that."),
]
MaxBytes = Annotated[
    str | None, typer.Option(help="Encoded images of more bytes are not read: 100MB, 64MiB; by default 64MiB.")
]


def limits_of(max_pixels: str | None, max_bytes: str | None) -> Limits:
    """What one image may cost to decode, by the two options.

    Raises:
        InputError: one is no number.
    """
    from srood.images import Limits

    limits = Limits()
    if max_pixels is not None:
        limits = replace(limits, pixels=commands.parse_count(max_pixels))
    if max_bytes is not None:
        limits = replace(limits, bytes=commands.parse_bytes(max_bytes, "--max-bytes"))
    return limits


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
