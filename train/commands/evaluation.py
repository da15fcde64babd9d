"""`srood eval` and `srood compare`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from srood.errors import InputError
from train.commands.options import (
    MACHINE,
    MODEL_HELP,
    Device,
)

Format = Annotated[str, typer.Option("--format", help="On standard output: table, markdown, csv, latex or json.")]


def evaluate(
    run: Annotated[
        Path,
        typer.Argument(help="Run folder, seed group, or a weights file (.safetensors).", show_default=False),
    ],
    ood: Annotated[
        list[str] | None,
        typer.Option(
            help="OOD set: NAME[:SPLIT], a folder or a file; or a group of sets: openood (near and far), paper (six). "
            "Repeat for more."
        ),
    ] = None,
    score: Annotated[
        list[str] | None,
        typer.Option(help="Score, all or default; repeat for more.", show_default="default"),
    ] = None,
    model: Annotated[str | None, typer.Option(help=f"For a weights file. {MODEL_HELP}", show_default=False)] = None,
    id: Annotated[str | None, typer.Option("--id", help="For a weights file: its ID set.", show_default=False)] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the results. By default the run, or runs/eval-FILE for a weights file."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="paper: --convention paper --draws 10, and --ood paper where no --ood is given.", show_default=False
        ),
    ] = None,
    convention: Annotated[
        str | None,
        typer.Option(help="Which FPR: ood-positive, id-positive or paper (see the docs).", show_default="ood-positive"),
    ] = None,
    tpr: Annotated[float, typer.Option(help="True positive rate at which the FPR is measured.")] = 0.95,
    draws: Annotated[
        int | None,
        typer.Option(
            help="Measure on so many random subsets of each OOD set, or on all images at once.", show_default="0"
        ),
    ] = None,
    draw_size: Annotated[
        int | None,
        typer.Option(help="Images a draw.", show_default="a fifth of the ID test set's number"),
    ] = None,
    draw_seed: Annotated[int | None, typer.Option(help="Seed of the draws.", show_default="0")] = None,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or auto.", rich_help_panel=MACHINE)] = "32-true",
    batch_size: Annotated[int, typer.Option(min=1, help="Images a forward pass.", rich_help_panel=MACHINE)] = 500,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep outputs in the run and use them again.")
    ] = True,
    format: Format = "table",
) -> None:
    """Measure a classifier: ID accuracy, and FPR, AUROC, AUPR and detection error of scores on OOD sets."""
    _check_format(format)
    from train.evaluation.evaluate import evaluate as run_evaluate

    result = run_evaluate(
        run,
        ood or [],
        model=model,
        id_set=id,
        out=out,
        protocol=protocol,
        convention=convention,
        tpr=tpr,
        scores=score or ["default"],
        draws=draws,
        draw_size=draw_size,
        draw_seed=draw_seed,
        device=device,
        precision=precision,
        batch_size=batch_size,
        cache=cache,
    )
    print_evaluation(result, format)
    if format == "table":
        print(f"written to {result['out']}")


def print_evaluation(result: dict[str, Any], format: str = "table") -> None:
    """An evaluation on standard output, in one of `train.evaluation.tables.FORMATS`; per cent but in CSV and JSON."""
    import json

    from train.evaluation import tables
    from train.evaluation.eval_tables import eval_csv, eval_notes, eval_tables

    if format == "json":
        print(json.dumps({k: v for k, v in result.items() if k != "out"}, indent=2, ensure_ascii=False))
    elif format == "csv":
        print(eval_csv(result), end="")
    elif format == "table":
        tables.print_tables(eval_tables(result, tables.console().width), eval_notes(result))
    else:
        form = tables.to_markdown if format == "markdown" else tables.to_latex
        found = eval_tables(result)
        for number, table in enumerate(found, start=1):
            print(form(tables.with_notes(table, eval_notes(result) if number == len(found) else [])))


def _check_format(format: str) -> None:
    from train.evaluation.tables import FORMATS

    if format not in FORMATS:
        raise InputError(f"--format {format}: is unknown; choose {', '.join(FORMATS)}")


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Evaluated runs: run folders, seed groups, folders with an eval.json, or such files.",
            show_default=False,
        ),
    ],
    score: Annotated[
        list[str] | None,
        typer.Option(help="Score, or all that every run has; repeat for more.", show_default="energy"),
    ] = None,
    compact: Annotated[
        bool, typer.Option("--compact", help="The mean over the OOD sets with all metrics, not every set.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for Markdown, CSV, LaTeX, JSON and plots. By default nothing is written."),
    ] = None,
    format: Format = "table",
) -> None:
    """Put evaluated runs side by side, with no forward pass: one table, and plots with --out."""
    _check_format(format)
    import json

    from srood.files import check_folder
    from train.evaluation import tables
    from train.evaluation.compare import compare as run_compare
    from train.evaluation.compare_report import write_comparison
    from train.evaluation.compare_tables import (
        compact_table,
        compare_csv,
        compare_values,
        long_table,
        notes,
        wide_table,
    )

    if out is not None:
        check_folder(out, "--out ")
    comparison = run_compare(runs, score or ["energy"])
    left_out = write_comparison(comparison, out, compact) if out is not None else []
    if format == "json":
        print(json.dumps(compare_values(comparison), indent=2, ensure_ascii=False))
    elif format == "csv":
        print(compare_csv(comparison), end="")
    elif format == "table":
        table = compact_table(comparison) if compact else long_table(comparison)
        tables.print_tables([table], notes(comparison))
    else:
        form = tables.to_markdown if format == "markdown" else tables.to_latex
        table = compact_table(comparison) if compact else wide_table(comparison)
        print(form(tables.with_notes(table, notes(comparison))), end="")
    for note in left_out:
        print(f"note: {note}", file=sys.stderr)
    if out is not None and format == "table":
        print(f"written to {out}")
