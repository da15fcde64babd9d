"""`srood demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from train.commands.options import (
    Device,
    Seed,
)
from train.commands.stopped import said_when_stopped


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for everything the demonstration makes; its own is replaced.")
    ] = Path("demo"),
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Show the whole path in little: outlier set, pretraining, SR, SROE, one table. Nothing is downloaded."""
    from train.demo import demo as run_demo

    with said_when_stopped("or all of it anew with the same `srood demo`"):
        run_demo(out, seed, device)
