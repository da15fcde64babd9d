"""Options and output that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

File = Annotated[Path, typer.Argument(help="Manifest of an outlier set, such as manifests/mini.h5.")]
SET = "mini.h5, or hf://owner/name on the Hub (hf://owner/name@REVISION/mini.h5)"
AnySet = Annotated[str, typer.Argument(metavar="FILE", help=f"Manifest of an outlier set: {SET}.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def print_json(value: Any) -> None:
    """Print a JSON document."""
    print(json.dumps(value, indent=2))
