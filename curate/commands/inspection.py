"""`curate inspect`, `report` and `verify`: what an outlier set says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curate.commands.options import AnySet, Json, print_json
from srood import commands


def inspect(file: AnySet, as_json: Json = False) -> None:
    """Print the manifest of an outlier set."""
    from curate.tables import print_manifest
    from srood.outlier_sources import manifest_of
    from srood.outliers import read_manifest

    manifest = read_manifest(manifest_of(file))
    if as_json:
        print_json(manifest)
    else:
        print_manifest(file, manifest)


def report(
    file: AnySet,
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("report.html"),
) -> None:
    """Write one HTML page on an outlier set: what went in, what was dropped, contact sheets, the leak certificate."""
    from curate.report import write_report
    from srood.outlier_sources import local_manifest

    write_report(local_manifest(file), out)
    print(f"wrote {out}: {out.stat().st_size / 1e6:.1f} MB, one page that needs no other file")


def verify(file: AnySet) -> None:
    """Hash every shard, every row and the evidence again; exit with code 1 on any difference."""
    from curate.tables import rows_in_shards
    from srood.outlier_sources import local_manifest
    from srood.outliers import evidence_name, read_manifest
    from srood.outliers import verify as verify_set

    path = local_manifest(file)
    problems = verify_set(path)
    for problem in problems:
        print(problem)
    manifest = read_manifest(path)
    if problems:
        print(f"{file}: {len(problems)} difference{'s' if len(problems) > 1 else ''}; build the set again")
        raise typer.Exit(commands.CHECK_FAILED)
    print(f"{file}: {rows_in_shards(manifest)} agree with the manifest")
    if manifest.get("evidence") and not (path.parent / evidence_name(path)).is_file():
        print(f"note: {evidence_name(path)} is not there: `curate report` shows none of the rows that were dropped")
