"""`curate audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curate.commands.options import Json, MaxBytes, MaxPixels, limits_of, print_json
from srood import commands


def audit(
    a: Annotated[str, typer.Argument(metavar="A", help="Image spec: the images to be judged.")],
    against: Annotated[
        str | None, typer.Option(help="Image spec B to search for copies of them; without it, A itself is searched.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the pairs: .parquet or .csv.")] = None,
    html: Annotated[Path | None, typer.Option(help="Page with the pairs side by side.")] = None,
    image_size: Annotated[int, typer.Option(help="Side to which images are brought, in pixels.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of the calibration.")] = 0,
    fail_on_match: Annotated[bool, typer.Option(help="Exit with code 1 if any pair is found.")] = False,
    workers: Annotated[int | None, typer.Option(help="Threads; by default one per processor.")] = None,
    max_pixels: MaxPixels = None,
    max_bytes: MaxBytes = None,
    as_json: Json = False,
) -> None:
    """List every pair of images of A and B that are the same picture, exact or near."""
    from curate import audit as audits
    from curate.audit_page import write_page
    from curate.tables import print_audit

    limits = limits_of(max_pixels, max_bytes)
    audits.check_outputs(out, html)
    found = audits.audit(a, against, image_size=image_size, seed=seed, workers=workers, limits=limits)
    if out:
        audits.write_pairs(found, out)
    if html:
        write_page(found, html)
    if as_json:
        print_json({**found.summary(), "out": out and str(out), "html": html and str(html)})
    else:
        print_audit(found, [path for path in (out, html) if path])
    if fail_on_match and len(found.pairs):
        raise typer.Exit(commands.CHECK_FAILED)
