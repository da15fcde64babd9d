"""Options that several commands share, each with its help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = (
    "Architecture: resnet20, wrn-40-2, wrn-28-10, resnet18, densenet, allconv, or timm:NAME for a model of timm."
)
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
