"""The `srood` command: train.commands has a module for each group of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from srood import commands
from train.commands import demonstration, detection, evaluation, publishing, reproduction, training

app = typer.Typer(
    name="srood",
    help="Pretrain, tune (SR, SROE), evaluate and deploy image classifiers for out-of-distribution detection.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from srood import __version__

        print(f"srood {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


app.command()(training.pretrain)
app.command()(training.train)
app.command("eval")(evaluation.evaluate)
app.command()(evaluation.compare)
app.command()(detection.calibrate)
app.command()(detection.detect)
app.command()(detection.export)
app.command()(publishing.push)
app.command()(reproduction.reproduce)
app.command()(demonstration.demo)


def main() -> None:
    """Run the command; a mistake in what was given becomes one line and exit code 2."""
    commands.run(app)


if __name__ == "__main__":
    main()
