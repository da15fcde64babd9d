"""`srood demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from train.commands.options import (
    Device,
    Seed,
)


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for everything the demonstration makes; its own is replaced.")
    ] = Path("demo"),
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Show the whole path in little: outlier set, pretraining, SR, SROE, one table. Nothing is downloaded."""
    from train.demo import demo as run_demo
    from train.reporting import say
    from train.signals import Stopped

    try:
        run_demo(out, seed, device)
    except Stopped as stopped:
        say(f"{stopped}; or all of it anew with the same `srood demo`")
        raise typer.Exit(stopped.exit_code) from None
