"""`srood reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srood.commands import CHECK_FAILED
from srood.errors import InputError
from train.commands.options import Device
from train.commands.stopped import said_when_stopped

if TYPE_CHECKING:
    from train.reproduce.documents import Document
    from train.reproduce.reproduce import Planned


def reproduce(
    table: Annotated[
        str | None,
        typer.Argument(
            help="Experiment: table1 to table4, accuracy, curation, held-out, narrow or scores.", show_default=False
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help="gpu: the paper's recipe in full. cpu: the same in little, on two cores. smoke: on digits.",
            show_default="cpu",
        ),
    ] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="The same as --profile smoke.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CELL",
            help="Only cells of these names or parts of names, as --dry-run lists them: sr, cifar10/sr, seed-0; repeat "
            "for more.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Weights to start from, in the place of pretraining.", show_default=False),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Cut every training to so many steps, to see that all works; the results get a name of their own.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    out: Annotated[Path, typer.Option(help="Folder for images that are made, outlier sets and runs.")] = Path(
        "runs/reproduce"
    ),
    results: Annotated[Path, typer.Option(help="Folder for the tables: TABLE-PROFILE.json and .md.")] = Path(
        "results/reproduce"
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells, how each stands and its commands; make nothing.")
    ] = False,
    inputs: Annotated[
        bool, typer.Option("--inputs", help="Make only the image sets that no other command makes.")
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write this page and its plots from all results; without TABLE nothing else is done.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run one of the paper's experiments again, and print its table with ours beside it.

    What is missing is pretrained. Every training is a run folder; what is finished is found again, and what was
    interrupted goes on. A cell that cannot be had is shown as missing, with the reason. The exit code is 1 where a cell
    failed, or none has figures.
    """
    if table is None and page is None:
        raise InputError("TABLE is missing; name an experiment, like table1, or give --page")
    if smoke and profile not in (None, "smoke"):
        raise InputError(f"--smoke: is --profile smoke, and --profile {profile} was given too; give one of them")
    about_cells = {"profile": profile, "smoke": smoke, "only": only, "checkpoint": checkpoint, "steps": steps}
    for name, value in (about_cells | {"dry-run": dry_run, "inputs": inputs}).items() if table is None else ():
        if value:
            raise InputError(f"--{name}: is about the cells of an experiment; name a TABLE, or leave it out")
    profile = "smoke" if smoke else profile or "cpu"
    failed = table is not None and _run(
        table, profile, only or [], checkpoint, steps, device, out, results, dry_run, inputs
    )
    if page is not None:
        from train.reproduce.page import write_page

        for path in write_page(page, results):
            print(f"written to {path}")
    if failed:
        raise typer.Exit(CHECK_FAILED)


def _run(
    table: str,
    profile: str,
    only: list[str],
    checkpoint: Path | None,
    steps: int | None,
    device: str,
    out: Path,
    results: Path,
    dry_run: bool,
    inputs: bool,
) -> bool:
    """Whether a cell failed, or none has figures."""
    from train.reproduce import reproduce as reproducing
    from train.reproduce.cells import Choices

    planned = reproducing.plan(table, profile, Choices(out, checkpoint, steps, device), only)
    if dry_run:
        print_plan(planned)
        return False
    if inputs:
        for folder in reproducing.make_inputs(planned):
            print(folder)
        return False
    with said_when_stopped("or all of it with the same `srood reproduce`"):
        document = reproducing.run(planned, results)
    print_document(document)
    path = reproducing.results_file(planned, results)
    print(f"written to {path} and {path.with_suffix('.md').name}")
    wanted = {cell.name for cell in planned.chosen}
    states = [cell.status for cell in document.cells if cell.name in wanted]
    return "failed" in states or "done" not in states


def print_document(document: Document) -> None:
    """The tables of an experiment with their notes."""
    from train.evaluation.tables import print_tables
    from train.reproduce.tables import notes, tables

    print_tables(tables(document), notes(document))


def print_plan(planned: Planned) -> None:
    """Each cell with how it stands, and its commands."""
    from train.reproduce.command_lines import commands_of
    from train.reproduce.reproduce import command_line
    from train.reproduce.running import is_finished

    for cell in planned.chosen:
        state = f"missing: {cell.reason}" if cell.run is None else "finished" if is_finished(cell) else "to make"
        print(f"{cell.name}: {state}")
        for name, reason in cell.missing.items():
            print(f"    # OOD set {name} is missing: {reason}")
        for line in commands_of(cell, command_line(planned)):
            print(f"    {line}")
