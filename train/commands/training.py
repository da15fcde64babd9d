"""`srood pretrain` and `srood train`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from srood.errors import InputError
from train.commands.options import (
    Accumulate,
    BatchSize,
    CheckpointEvery,
    Compile,
    CropPadding,
    Device,
    Devices,
    Epochs,
    FinalLr,
    Id,
    ImageSize,
    Lr,
    MaxSteps,
    Model,
    Momentum,
    Out,
    PrecisionOption,
    Resume,
    Seed,
    Seeds,
    TensorBoard,
    Validation,
    WeightDecay,
)
from train.commands.stopped import said_when_stopped

OUTLIERS, SWITCHES = "Outliers", "Where the paper and its authors' code differ"


class Protocol(str, Enum):
    """Named settings of several options at once."""

    default = "default"
    paper = "paper"


def _outliers(help: str, panel: str = OUTLIERS, **options: Any) -> Any:
    return typer.Option(help=help, rich_help_panel=panel, **options)


def pretrain(
    context: typer.Context,
    id: Id = "cifar10",
    model: Model = "wrn-40-2",
    image_size: ImageSize = 32,
    seed: Seed = 0,
    seeds: Seeds = 1,
    epochs: Epochs = 100,
    batch_size: BatchSize = 128,
    lr: Lr = 0.1,
    final_lr: FinalLr = 1e-6,
    momentum: Momentum = 0.9,
    weight_decay: WeightDecay = 5e-4,
    crop_padding: CropPadding = 4,
    validation: Validation = 0.0,
    device: Device = "auto",
    devices: Devices = 1,
    precision: PrecisionOption = "auto",
    accumulate: Accumulate = 1,
    compile: Compile = False,
    out: Out = None,
    resume: Resume = None,
    max_steps: MaxSteps = None,
    checkpoint_every: CheckpointEvery = None,
    tensorboard: TensorBoard = False,
) -> None:
    """Train a classifier on an ID set from a random start, by cross entropy."""
    if resume is None:
        from train.config import PretrainConfig
        from train.pretrain import pretrain as run_pretrain

        _start(PretrainConfig, run_pretrain, _settings(context, PretrainConfig), seeds, out)
    else:
        _resume(context, resume, device)


def train(
    context: typer.Context,
    outliers: Annotated[
        list[str] | None,
        _outliers(
            "Outlier set: its manifest, or hf://owner/name@revision; repeat for more, each with :WEIGHT if wanted "
            "(a.h5:0.5). Without any, a method that needs none.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="sr, sroe, ce, oe, energy, oecc, entropic, objectosphere or logitnorm. By default sroe with outliers, "
            "sr without.",
            show_default=False,
        ),
    ] = None,
    id: Id = "cifar10",
    model: Model = "wrn-40-2",
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Run folder or weights file to start from. By default the newest pretrained run under runs/ for this "
            "ID set and model that held out the same images; where there is none, one is pretrained first. "
            "With --seeds a folder of as many pretrained runs will do too.",
            show_default=False,
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(help="Weight of the features' L1 sparsity; sr, sroe: 0.02.", show_default=False),
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="Weight of the outlier term; sroe, oe: 0.5, energy: 0.1.", show_default=False)
    ] = None,
    method_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Another weight of the method; repeat for more.", show_default=False),
    ] = None,
    protocol: Annotated[
        Protocol,
        typer.Option(help="paper: every switch below as in the authors' code; an option given beside it counts more."),
    ] = Protocol.default,
    seed: Seed = 0,
    seeds: Seeds = 1,
    image_size: ImageSize = 32,
    outlier_batch_size: Annotated[int, _outliers("Outliers a step, of all sets together.")] = 256,
    outlier_memory: Annotated[
        str,
        _outliers("Memory for outliers: sets that do not fit into it together are read from disk in shuffled blocks."),
    ] = "8GB",
    reselect: Annotated[
        str | None,
        _outliers(
            "SCORE:LOW-HIGH, like energy:0.1-0.6: each epoch draw from the outliers between two quantiles of a score "
            "(0: most like ID).",
            show_default=False,
        ),
    ] = None,
    batch_norm: Annotated[
        str, _outliers("Rows whose statistics batch norm takes: joint (ID images and outliers) or id.")
    ] = "joint",
    sparsity_on: Annotated[str, _outliers("Features in the L1 term of sroe: id or all.", SWITCHES)] = "id",
    outlier_crop_padding: Annotated[
        int | None,
        _outliers("As --crop-padding, for outliers. By default the same.", SWITCHES, show_default=False),
    ] = None,
    outlier_normalisation: Annotated[
        str, _outliers("Mean and std that outliers are normalised with: id or imagenet.", SWITCHES)
    ] = "id",
    outlier_order: Annotated[str, _outliers("shuffled, or stored: as in the set.", SWITCHES)] = "shuffled",
    epoch_ends_with: Annotated[
        str, _outliers("id: outliers cycle. shorter: an epoch ends where a set of outliers does.", SWITCHES)
    ] = "id",
    epochs: Epochs = 10,
    batch_size: BatchSize = 128,
    lr: Lr = 0.001,
    final_lr: FinalLr = 1e-6,
    momentum: Momentum = 0.9,
    weight_decay: WeightDecay = 5e-4,
    crop_padding: CropPadding = 4,
    validation: Validation = 0.0,
    device: Device = "auto",
    devices: Devices = 1,
    precision: PrecisionOption = "auto",
    accumulate: Accumulate = 1,
    compile: Compile = False,
    out: Out = None,
    resume: Resume = None,
    max_steps: MaxSteps = None,
    checkpoint_every: CheckpointEvery = None,
    tensorboard: TensorBoard = False,
) -> None:
    """Tune a pretrained classifier: SROE with --outliers, SR without, or what they are compared with."""
    if resume is None:
        from train.config import TuneConfig, make_config, paper_protocol
        from train.tune import tune

        settings = _settings(context, TuneConfig)
        if "outlier_batch_size" in settings and "outliers" not in settings:  # in Python runs may share it
            raise InputError("--outlier-batch-size: there are no outliers; give --outliers, or leave it out")
        if method_option:
            settings["method_options"] = dict(_named_value(text) for text in method_option)
        if protocol is Protocol.paper:
            switches = paper_protocol(make_config(TuneConfig, settings).workflow)
            if "outlier_sparsity" in settings.get("method_options", {}):
                switches.pop("sparsity_on", None)  # the same switch by its other name
            settings |= {name: value for name, value in switches.items() if name not in settings}
        _start(TuneConfig, tune, settings, seeds, out)
    else:
        _resume(context, resume, device)


def _settings(context: typer.Context, kind: Any) -> dict[str, Any]:
    """What was given; the rest has the configuration's defaults, which are those of the options."""
    given = {name: value for name, value in context.params.items() if _given(context, name)}
    return {name: value for name, value in given.items() if name in kind.model_fields}


def _named_value(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--method-option {text}: write NAME=VALUE")
    try:
        return name, float(value)
    except ValueError as error:
        raise InputError(f"--method-option {text}: '{value}' is not a number") from error


def _start(kind: Any, run: Any, settings: dict[str, Any], seeds: int, out: Path | None) -> None:
    from train.config import make_config

    config = make_config(kind, settings)
    if seeds == 1:
        _print(lambda: run(config, out))
    else:
        from train.seeds import run_seeds

        _print(lambda: run_seeds(config, seeds, out))


def _given(context: typer.Context, name: str) -> bool:
    return str(context.get_parameter_source(name)).endswith("COMMANDLINE")


def _resume(context: typer.Context, run: Path, device: str) -> None:
    given = [name for name in context.params if name not in ("resume", "device") and _given(context, name)]
    if given:
        option = given[0].replace("_", "-")
        raise InputError(f"--{option}: cannot be given with --resume; a run continues with its own settings")
    from train.seeds import continue_seeds, is_group
    from train.tune import resume

    elsewhere = None if device == "auto" else device
    _print(lambda: continue_seeds(run, elsewhere) if is_group(run) else resume(run, elsewhere))


def _print(train: Any) -> None:
    """Print the path of what was trained; a run that was told to stop says how to go on."""
    with said_when_stopped():
        print(train())
