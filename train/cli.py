"""The `srood` command: parsing and printing only. What computes is imported when a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from srood import commands
from srood.errors import InputError

app = typer.Typer(
    name="srood",
    help="Pretrain, tune (SR, SROE) and evaluate image classifiers for out-of-distribution detection.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

MODEL_HELP = "Architecture: resnet20 or wrn-40-2."
ID_HELP = "ID set: a named set (cifar10, cifar100), or a folder with train/ and test/ of class subfolders."
DEVICE_HELP = "auto, cpu, cuda, cuda:N or mps."
PRECISION_HELP = "auto, 32-true or bf16-mixed; auto is bf16-mixed where the device computes in bfloat16."
OUT_HELP = "Run folder, new or empty. By default under runs/, named after ID set, model, workflow and seed."
MAX_STEPS_HELP = "Stop after this many steps; the learning rate reaches its end there."
CHECKPOINT_EVERY_HELP = "Steps between checkpoints. By default each epoch, and every five minutes."
RESUME_HELP = "Continue this run folder with its own settings; only --device may be given with it."

Id = Annotated[str, typer.Option("--id", help=ID_HELP)]
Model = Annotated[str, typer.Option(help=MODEL_HELP)]
ImageSize = Annotated[int, typer.Option(help="Side of the images in pixels; others are resized and cropped.")]
Epochs = Annotated[int, typer.Option(help="Passes over the ID training images.")]
BatchSize = Annotated[int, typer.Option(help="ID images a step.")]
Lr = Annotated[float, typer.Option(help="Learning rate at the first step; cosine per step down to 1e-6.")]
Seed = Annotated[int, typer.Option(help="Seed of weights, order, augmentation and dropout.")]
Device = Annotated[str, typer.Option(help=DEVICE_HELP)]
PrecisionOption = Annotated[str, typer.Option(help=PRECISION_HELP)]
Out = Annotated[Path | None, typer.Option(help=OUT_HELP, show_default=False)]
MaxSteps = Annotated[int | None, typer.Option(help=MAX_STEPS_HELP, show_default=False)]
CheckpointEvery = Annotated[int | None, typer.Option(help=CHECKPOINT_EVERY_HELP, show_default=False)]
Resume = Annotated[Path | None, typer.Option(help=RESUME_HELP, show_default=False)]


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


@app.command()
def pretrain(
    context: typer.Context,
    id: Id = "cifar10",
    model: Model = "wrn-40-2",
    image_size: ImageSize = 32,
    epochs: Epochs = 100,
    batch_size: BatchSize = 128,
    lr: Lr = 0.1,
    seed: Seed = 0,
    device: Device = "auto",
    precision: PrecisionOption = "auto",
    out: Out = None,
    max_steps: MaxSteps = None,
    checkpoint_every: CheckpointEvery = None,
    resume: Resume = None,
) -> None:
    """Train a classifier on an ID set from a random start, by cross entropy."""
    if resume is not None:
        _resume(context, resume, device)
        return
    from train.config import PretrainConfig, make_config
    from train.pretrain import pretrain as run_pretrain

    config = make_config(
        PretrainConfig,
        {
            "id": id,
            "model": model,
            "image_size": image_size,
            "epochs": epochs,
            "batch_size": batch_size,
            "lr": lr,
            "seed": seed,
            "device": device,
            "precision": precision,
            "max_steps": max_steps,
            "checkpoint_every": checkpoint_every,
        },
    )
    print(run_pretrain(config, out))


@app.command()
def train(
    context: typer.Context,
    outliers: Annotated[
        Path | None,
        typer.Option(help="Manifest of an outlier set, for SROE; without it, SR.", show_default=False),
    ] = None,
    id: Id = "cifar10",
    model: Model = "wrn-40-2",
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Run folder or weights file to start from. By default the newest pretrained run under runs/ for this "
            "ID set and model; where there is none, one is pretrained first.",
            show_default=False,
        ),
    ] = None,
    alpha: Annotated[float, typer.Option(help="Weight of the L1 sparsity of the ID features.")] = 0.02,
    beta: Annotated[float, typer.Option(help="Weight of the outlier exposure term (SROE).")] = 0.5,
    epochs: Epochs = 10,
    batch_size: BatchSize = 128,
    outlier_batch_size: Annotated[int, typer.Option(help="Outliers a step (SROE).")] = 256,
    lr: Lr = 0.001,
    seed: Seed = 0,
    device: Device = "auto",
    precision: PrecisionOption = "auto",
    out: Out = None,
    max_steps: MaxSteps = None,
    checkpoint_every: CheckpointEvery = None,
    resume: Resume = None,
) -> None:
    """Tune a pretrained classifier: SROE with --outliers, SR without."""
    if resume is not None:
        _resume(context, resume, device)
        return
    from train.config import TuneConfig, make_config
    from train.tune import tune

    config = make_config(
        TuneConfig,
        {
            "id": id,
            "model": model,
            "checkpoint": checkpoint,
            "outliers": outliers,
            "alpha": alpha,
            "beta": beta,
            "epochs": epochs,
            "batch_size": batch_size,
            "outlier_batch_size": outlier_batch_size,
            "lr": lr,
            "seed": seed,
            "device": device,
            "precision": precision,
            "max_steps": max_steps,
            "checkpoint_every": checkpoint_every,
        },
    )
    print(tune(config, out))


@app.command("eval")
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


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for everything the demonstration makes; its own is replaced.")
    ] = Path("demo"),
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Show the whole path in little: outlier set, pretraining, SR, SROE, one table. Nothing is downloaded."""
    from train.demo import demo as run_demo

    run_demo(out, seed, device)


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


def _resume(context: typer.Context, run: Path, device: str) -> None:
    given = [
        name
        for name in context.params
        if str(context.get_parameter_source(name)).endswith("COMMANDLINE") and name not in ("resume", "device")
    ]
    if given:
        option = given[0].replace("_", "-")
        raise InputError(f"--{option}: cannot be given with --resume; a run continues with its own settings")
    from train.tune import resume

    print(resume(run, None if device == "auto" else device))


def main() -> None:
    """Run the command; a mistake in what was given becomes one line and exit code 2."""
    commands.run(app)


if __name__ == "__main__":
    main()
