"""`srood eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from train.commands.options import (
    MODEL_HELP,
    Device,
)


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder, or a weights file (.safetensors).", show_default=False)],
    ood: Annotated[
        list[str] | None, typer.Option(help="OOD set, NAME[:SPLIT], a folder or a Parquet file; repeat for more.")
    ] = None,
    model: Annotated[str | None, typer.Option(help=f"For a weights file. {MODEL_HELP}", show_default=False)] = None,
    id: Annotated[str | None, typer.Option("--id", help="For a weights file: its ID set.", show_default=False)] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the results. By default the run, or runs/eval-FILE for a weights file."),
    ] = None,
    convention: Annotated[
        str, typer.Option(help="Which FPR95: ood-positive or id-positive (see the docs of srood.metrics).")
    ] = "ood-positive",
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or auto.")] = "32-true",
    batch_size: Annotated[int, typer.Option(min=1, help="Images a forward pass.")] = 500,
) -> None:
    """Measure a classifier: ID accuracy, and FPR95, AUROC and AUPR of every score on every OOD set."""
    from train.evaluate import evaluate as run_evaluate

    result = run_evaluate(
        run,
        ood or [],
        model=model,
        id_set=id,
        out=out,
        convention=convention,
        device=device,
        precision=precision,
        batch_size=batch_size,
    )
    print_evaluation(result)
    print(f"written to {result['out']}")


def print_evaluation(result: dict[str, Any]) -> None:
    """The table of an evaluation on standard output, in per cent."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result['weights']['file']} ({result['model']})")
    for name in ("OOD set", "images", "score", "FPR95", "AUROC", "AUPR-in", "AUPR-out"):
        table.add_column(name, justify="left" if name in ("OOD set", "score") else "right")
    rows = [(name, f"{entry['images']:,}", entry["scores"]) for name, entry in result["ood"].items()]
    if len(rows) > 1:
        rows.append(("mean", "", result["mean"]))
    for name, images, scores in rows:
        for number, (score, metrics) in enumerate(scores.items(), start=1):
            cells = [f"{100 * metrics[key]:.2f}" for key in ("fpr95", "auroc", "aupr_in", "aupr_out")]
            first = (name, images) if number == 1 else ("", "")
            table.add_row(*first, score, *cells, end_section=number == len(scores))
    console = Console()
    console.print(table)
    id_part = result["id"]
    console.print(
        f"ID accuracy {100 * result['id_accuracy']:.2f} % on {id_part['images']:,} images of {id_part['spec']}",
        highlight=False,
    )
    convention = result["convention"]
    console.print(f"FPR95 {convention['name']}: {convention['fpr95']}. All in per cent.", highlight=False)
