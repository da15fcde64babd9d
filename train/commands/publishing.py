"""`srood push`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from train.publishing.push import Prepared


def push(
    run: Annotated[Path, typer.Argument(help="Run folder of a finished run.", show_default=False)],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Model repository on the Hub.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str, typer.Option(help="Branch to push to; made if need be.")] = "main",
    message: Annotated[str | None, typer.Option(help="Of the commit. By default what the run is.")] = None,
    license: Annotated[
        str | None, typer.Option(help="Licence of the weights as the Hub abbreviates it: apache-2.0, mit, other, ...")
    ] = None,
    dry_run: Annotated[
        Path | None,
        typer.Option(help="Write what would be uploaded into this folder, and ask nothing of the network."),
    ] = None,
) -> None:
    """Publish a run on the Hugging Face Hub: weights, settings, detector, measurements and a model card."""
    from train.publishing import push as pushing

    if dry_run is not None:
        prepared = pushing.prepare(run, repo, dry_run, license=license, revision=revision)
        print_files(prepared)
        print(f"written to {dry_run}; nothing was uploaded")
        return
    pushed, prepared = pushing.push(run, repo, private=private, revision=revision, message=message, license=license)
    print_files(prepared)
    print(f"commit {pushed.commit}" if pushed.changed else f"nothing changed since commit {pushed.commit}")
    print(pushed.url)


def print_files(prepared: Prepared) -> None:
    """The files with their size in bytes, and what was left out."""
    for name, size in prepared.files.items():
        print(f"{size:>13,} {name}")
    for note in prepared.left_out:
        print(note)
