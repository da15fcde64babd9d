"""`curate export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curate.commands.options import AnySet, Json, print_json


def export(
    file: AnySet,
    format: Annotated[str, typer.Option(help="parquet, webdataset, imagefolder or hdf5.")],
    out: Annotated[Path, typer.Option(help="Folder to make; it must be new or empty, or hold this export.")],
    workers: Annotated[int | None, typer.Option(help="Encoding threads; by default one per processor.")] = None,
    as_json: Json = False,
) -> None:
    """Write an outlier set in a format that others read: all rows and columns, lossless, with the manifest as JSON."""
    from curate.exporting.export import export as export_set

    exported = export_set(file, format, out, workers=workers)
    if as_json:
        print_json(exported.to_dict())
    else:
        counts = f"{exported.rows:,} rows in {exported.files:,} files, {exported.bytes / 1e6:.1f} MB"
        done = f"{out} holds this export already" if exported.already else f"wrote {out}"
        print(f"{done} ({exported.format}): {counts}")
