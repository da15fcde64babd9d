"""`curate rebuild`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from curate.commands.options import SAME_COMMAND, SET, Json, print_json
from srood import commands
from srood.stopping import going_on


def rebuild(
    manifest: Annotated[
        str,
        typer.Argument(help=f"Manifest, whose shards need not be there: {SET}."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Manifest to write; by default manifests/NAME, or MANIFEST itself where it lacks its shards."
        ),
    ] = None,
    look_in: Annotated[
        list[Path] | None,
        typer.Option(help="Folder that holds local files and folders which the manifest names; may be repeated."),
    ] = None,
    embedder: Annotated[
        str | None, typer.Option(help="checkpoint:PATH or onnx:PATH, where such weights were used.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Find and compare the inputs; build nothing.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace another set at --out.")] = False,
    workers: Annotated[int | None, typer.Option(help="Decoding threads; by default one per processor.")] = None,
    as_json: Json = False,
) -> None:
    """Make an outlier set again from its manifest, and say whether the bytes agree.

    Exit code 1: they do not, or (--dry-run) an input is missing or is not what was read.
    """
    from curate.rebuilding.rebuild import rebuild as rebuild_set
    from curate.tables import print_inputs

    with going_on(SAME_COMMAND):
        result = rebuild_set(
            manifest,
            out,
            embedder=embedder,
            look_in=look_in or (),
            workers=workers,
            overwrite=overwrite,
            dry_run=dry_run,
        )
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        shown = {"out": result.out and str(result.out), "inputs": [asdict(entry) for entry in result.found]}
        agreement = result.agreement and result.agreement.to_dict()
        print_json({**shown, "problems": result.problems, "notes": result.notes, "agreement": agreement})
    elif result.agreement is None:
        print_inputs(result.found)
        for problem in result.problems:
            print(problem)
        print("dry run: nothing was built" + ("" if result.problems else "; every input is what was read"))
    else:
        for line in result.agreement.lines():
            print(line)
        print(f"the set is {result.out}")
    if result.problems or (result.agreement and not result.agreement.bytes_agree):
        raise typer.Exit(commands.CHECK_FAILED)
