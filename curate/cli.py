"""The `curate` command: curate.commands has a module for each group of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from curate.commands import auditing, building, deriving, exporting, inspection, listing, publishing, rebuilding
from srood import __version__, commands

app = typer.Typer(
    help="Build small auxiliary outlier sets out of large image corpora.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the console script."""
    commands.run(app)


def _show_version(value: bool) -> None:
    if value:
        print(f"curate (srood {__version__})")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the command itself."""


app.command()(building.build)
app.command()(auditing.audit)
app.command()(exporting.export)
app.command()(deriving.diff)
app.command()(deriving.merge)
app.command()(deriving.select)
app.command()(inspection.inspect)
app.command()(inspection.report)
app.command()(inspection.verify)
app.command()(rebuilding.rebuild)
app.command()(listing.exclusions)
app.command()(listing.sources)
app.command()(publishing.publish)
app.command()(publishing.pull)
