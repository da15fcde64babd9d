"""What a finished run did, in a few lines for a person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from srood.errors import InputError
from train import runs
from train.logbook import read_log
from train.reporting import say

QUIET = ("step", "epoch", "lr", "steps", "seconds", "images_per_second", "validation_loss", "validation_accuracy")


def summarise(run: Path) -> dict[str, Any]:
    """Numbers of a finished run, from its log.

    Returns:
        ``steps``, ``seconds`` and ``images_per_second`` of training; ``first`` and ``last``, the means of the loss, its
        terms and the ID accuracy over the first and the last interval of the log; ``best``, what was measured on the
        held-out images where there are such.

    Raises:
        InputError: the log is gone or empty.
    """
    log = run / runs.METRICS_FILE
    lines = read_log(log) if log.exists() else []
    if not lines:
        raise InputError(f"{log}: is gone or empty, so there is no telling how the training went")
    seconds = sum(line["seconds"] for line in lines)
    images = sum(line["seconds"] * line["images_per_second"] for line in lines)
    validated = [line for line in lines if "validation_loss" in line]
    first, last = ({name: value for name, value in line.items() if name not in QUIET} for line in (lines[0], lines[-1]))
    return {
        "steps": lines[-1]["step"],
        "seconds": seconds,
        "images_per_second": images / max(seconds, 1e-9),
        "first": first,
        "last": last,
        "best": min(validated, key=lambda line: line["validation_loss"], default=None),
    }


def say_summary(run: Path) -> None:
    """Print the summary of a finished run on standard error."""
    try:
        summary = summarise(run)
    except InputError as error:  # the weights are there all the same
        say(f"note: {error}")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("while training")
    for heading in ("first", "last"):
        table.add_column(heading, justify="right")
    for name, value in summary["last"].items():
        cells = [f"{100 * v:.2f} %" if name == "id_accuracy" else f"{v:.4f}" for v in (summary["first"][name], value)]
        table.add_row(name.replace("_", " "), *cells)
    console = Console(stderr=True, markup=False, emoji=False)
    console.print(table)
    took = (
        f"{summary['steps']:,} steps in {summary['seconds'] / 60:.1f} min, {summary['images_per_second']:,.0f} images/s"
    )
    console.print(took, highlight=False)
    if summary["best"] is not None:
        best = summary["best"]
        console.print(
            f"kept: step {best['step']:,}, the best on held-out images "
            f"(loss {best['validation_loss']:.4f}, accuracy {100 * best['validation_accuracy']:.2f} %)",
            highlight=False,
        )
    console.print(f"measure it with: srood eval {run} --ood SET", highlight=False, soft_wrap=True)
