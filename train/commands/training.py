"""`srood pretrain` and `srood train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srood.errors import InputError
from train.commands.options import (
    BatchSize,
    CheckpointEvery,
    Device,
    Epochs,
    Id,
    ImageSize,
    Lr,
    MaxSteps,
    Model,
    Out,
    PrecisionOption,
    Resume,
    Seed,
)


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
