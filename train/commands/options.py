"""Options that several commands share, each with its help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

MODEL_HELP = (
    "Architecture: resnet20, wrn-40-2, wrn-28-10, resnet18, densenet, allconv, or timm:NAME for a model of timm."
)
ID_HELP = "ID set: a named set (cifar10, cifar100), or a folder with train/ and test/ of class subfolders."
DEVICE_HELP = "auto, cpu, cuda, cuda:N or mps."
RECIPE, MACHINE, RUN = "Recipe", "Machine", "Run"


def _recipe(help: str, **options: Any) -> Any:
    return typer.Option(help=help, rich_help_panel=RECIPE, **options)


def _machine(help: str, **options: Any) -> Any:
    return typer.Option(help=help, rich_help_panel=MACHINE, **options)


def _run(help: str, **options: Any) -> Any:
    return typer.Option(help=help, rich_help_panel=RUN, show_default=False, **options)


Id = Annotated[str, typer.Option("--id", help=ID_HELP)]
Model = Annotated[str, typer.Option(help=MODEL_HELP)]
ImageSize = Annotated[int, typer.Option(help="Side of the images in pixels; others are resized and cropped.")]
Seed = Annotated[int, typer.Option(help="Seed of weights, order, augmentation and dropout.")]
Seeds = Annotated[int, typer.Option(min=1, help="Train this many runs, with the seeds from --seed on.")]

Epochs = Annotated[int, _recipe("Passes over the ID training images.")]
BatchSize = Annotated[int, _recipe("ID images a step.")]
Lr = Annotated[float, _recipe("Learning rate at the first step; cosine per step down to --final-lr.")]
FinalLr = Annotated[float, _recipe("Learning rate after the last step.")]
Momentum = Annotated[float, _recipe("Of SGD, Nesterov's.")]
WeightDecay = Annotated[float, _recipe("Of SGD.")]
CropPadding = Annotated[int, _recipe("Black pixels around an ID image before its random crop; 0: no crop.")]
Validation = Annotated[
    float,
    _recipe("Share of the ID training images, and of outliers, held out; the weights that do best on them are kept."),
]

Device = Annotated[str, _machine(DEVICE_HELP)]
Devices = Annotated[int, _machine("GPUs, or CPU processes, that share each batch (DDP).")]
PrecisionOption = Annotated[
    str, _machine("auto, 32-true or bf16-mixed; auto is bf16-mixed where the device computes in bfloat16.")
]
Accumulate = Annotated[int, _machine("Parts in which a batch goes through the network, to save memory.")]
Compile = Annotated[bool, _machine("Compile the network with torch.compile.")]

Out = Annotated[Path | None, _run("Run folder, new or empty. By default under runs/, named after what is trained.")]
Resume = Annotated[Path | None, _run("Continue this run with its own settings; only --device may be given with it.")]
MaxSteps = Annotated[int | None, _run("Stop after this many steps; the learning rate reaches its end there.")]
CheckpointEvery = Annotated[
    int | None, _run("Steps between checkpoints. By default each epoch, and every five minutes.")
]
TensorBoard = Annotated[bool, _run("Also log for TensorBoard, into RUN/tensorboard.")]
