"""Every setting of a training run, with the paper's defaults; unknown settings are refused."""

from __future__ import annotations

import re
import reprlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from srood import manifests
from srood.errors import InputError

Precision = Literal["auto", "32-true", "bf16-mixed"]
PRECISIONS = ("auto", "32-true", "bf16-mixed")
CONFIG_FILE = "config.yaml"

# `--protocol paper`: the switches in which the authors' code differs from the paper, all together
PAPER_PROTOCOL: dict[str, Any] = {
    "sparsity_on": "all",
    "crop_padding": 0,
    "outlier_crop_padding": 8,
    "outlier_normalisation": "imagenet",
    "outlier_order": "stored",
    "epoch_ends_with": "shorter",
}


class TrainConfig(BaseModel):
    """What pretraining and tuning have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    id: str = "cifar10"  # named set, or a folder (with train/ and test/ if it has them)
    model: str = "wrn-40-2"
    image_size: int = Field(32, ge=8, le=256)
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(128, ge=1)  # ID images a step; the last batch of an epoch may be smaller
    accumulate: int = Field(1, ge=1)  # parts in which a step's batch goes through the network, to save memory
    lr: float = Field(0.001, gt=0, allow_inf_nan=False)  # at the first step, then cosine per step
    final_lr: float = Field(1e-6, ge=0, allow_inf_nan=False)  # where the cosine ends
    momentum: float = Field(0.9, ge=0, lt=1)  # Nesterov
    weight_decay: float = Field(5e-4, ge=0, allow_inf_nan=False)
    crop_padding: int = Field(4, ge=0, le=64)  # black pixels on each side before the random crop
    validation: float = Field(0.0, ge=0, le=0.5)  # share of the training images held out, to choose the best weights
    seed: int = Field(0, ge=0, lt=2**63)
    device: str = "auto"  # auto, cpu, cuda, cuda:N, mps
    devices: int = Field(1, ge=1)  # processes that share each batch; on CUDA a GPU each
    precision: Precision = "auto"  # auto: bf16-mixed where the device computes in bfloat16, else 32-true
    compile: bool = False  # torch.compile
    tensorboard: bool = False
    max_steps: int | None = Field(None, ge=1)  # a shorter run: the schedule ends here too
    checkpoint_every: int | None = Field(None, ge=1)  # steps; None: each epoch, and every five minutes


class PretrainConfig(TrainConfig):
    """Training from a random start (paper: 100 epochs from a learning rate of 0.1)."""

    epochs: int = Field(100, ge=1)
    lr: float = Field(0.1, gt=0, allow_inf_nan=False)

    @property
    def workflow(self) -> str:
        """``pretrain``."""
        return "pretrain"


class BlockSettings(BaseModel):
    """How an outlier set that does not fit in memory is read; it decides which rows make up a step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_rows: int = Field(ge=1)  # rows to draw from
    block_rows: int = Field(ge=1)  # consecutive rows that are read together
    held_out_blocks: int = Field(0, ge=0)  # blocks to validate on

    @model_validator(mode="after")
    def _fits(self) -> BlockSettings:
        if self.block_rows > self.window_rows:
            raise ValueError(f"block_rows {self.block_rows} must not be above window_rows {self.window_rows}")
        return self


class TuneConfig(TrainConfig):
    """Tuning a pretrained classifier, with outliers or without."""

    checkpoint: Path | None = None  # run folder or weights file; None: the newest pretrained run, or a new one
    method: str | None = None  # a name of srood.methods; None: sroe with outliers, sr without
    alpha: float | None = Field(None, ge=0, allow_inf_nan=False)  # weight of the sparsity term; None: the method's
    beta: float | None = Field(None, ge=0, allow_inf_nan=False)  # weight of the outlier term; None: the method's
    method_options: dict[str, float] = {}  # other weights of the method
    sparsity_on: Literal["id", "all"] = "id"  # all: the sparsity term counts outlier features too (SROE)
    outliers: tuple[str, ...] = ()  # manifests of outlier sets, PATH or PATH:WEIGHT, or hf://owner/name
    outlier_batch_size: int = Field(256, ge=1)
    outlier_memory: str = "8GB"  # sets that do not fit into it together are read in shuffled blocks
    outlier_blocks: tuple[BlockSettings | None, ...] = ()  # of each set, None: in memory; (): by outlier_memory
    outlier_crop_padding: int | None = Field(None, ge=0, le=64)  # None: as crop_padding
    outlier_normalisation: Literal["id", "imagenet"] = "id"
    outlier_order: Literal["shuffled", "stored"] = "shuffled"
    epoch_ends_with: Literal["id", "shorter"] = "id"  # shorter: with the ID images or the outliers
    reselect: str | None = None  # SCORE:LOW-HIGH: each epoch the outliers between two quantiles of a score
    batch_norm: Literal["joint", "id"] = "joint"  # rows whose statistics batch norm takes: all, or the ID rows

    @field_validator("outliers", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """One path stands for a list of one, None for none."""
        if value is None:
            return ()
        return (str(value),) if isinstance(value, str | Path) else tuple(str(item) for item in value)

    @property
    def workflow(self) -> str:
        """The method: by default ``sroe`` with outliers, ``sr`` without."""
        return self.method or ("sroe" if self.outliers else "sr")


AnyConfig = PretrainConfig | TuneConfig


def make_config(kind: type[PretrainConfig] | type[TuneConfig], settings: dict[str, Any]) -> Any:
    """Build a configuration from plain values.

    Raises:
        InputError: naming the first setting at fault as the command line writes it.
    """
    try:
        return kind(**settings)
    except ValidationError as error:
        raise InputError(_explain(error, "--{}")) from error


def paper_protocol(workflow: str) -> dict[str, Any]:
    """The switches of the authors' code that mean something to a method."""
    from srood.methods import find_method

    method = find_method(workflow)
    if not method.outliers:
        return {"crop_padding": PAPER_PROTOCOL["crop_padding"]}
    return {n: v for n, v in PAPER_PROTOCOL.items() if n != "sparsity_on" or "outlier_sparsity" in method.options}


def outlier_weight(spec: str) -> tuple[str, float]:
    """``PATH:WEIGHT`` to path and weight; the weight is 1 where none is given.

    Raises:
        InputError: the weight is not above zero.
    """
    match = re.fullmatch(r"(.+):(-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)", spec)
    if match is None:
        return spec, 1.0
    weight = float(match[2])
    if not 0 < weight < float("inf"):
        raise InputError(f"--outliers {spec}: the weight after the colon must be above zero")
    return match[1], weight


def reselection(text: str) -> tuple[str, float, float]:
    """``SCORE:LOW-HIGH`` to the score's name and two quantiles in [0, 1].

    Raises:
        InputError: it is not written like that, or the band is empty.
    """
    match = re.fullmatch(r"([a-z-]+):(\d*\.?\d+)-(\d*\.?\d+)", text)
    if match is None or not 0 <= float(match[2]) < float(match[3]) <= 1:
        raise InputError(
            f"--reselect {text}: write SCORE:LOW-HIGH with quantiles from 0 (most like ID) to 1, like energy:0.1-0.6"
        )
    return match[1], float(match[2]), float(match[3])


def read_config(run: Path) -> AnyConfig:
    """The configuration that a run was started with.

    Raises:
        InputError: no such run, or a configuration with unknown or impossible settings.
    """
    from srood.methods import METHODS

    path = run / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"{run}: is not a run folder (it holds no {CONFIG_FILE}); check the path")
    values = manifests.read_yaml(path)
    workflow = values.pop("workflow", None) if isinstance(values, dict) else None
    kind: type[PretrainConfig] | type[TuneConfig] = PretrainConfig if workflow == "pretrain" else TuneConfig
    if kind is TuneConfig and not (isinstance(workflow, str) and workflow in METHODS):
        raise InputError(f"{path}: workflow is {reprlib.repr(workflow)}, not one of pretrain, {', '.join(METHODS)}")
    try:
        return kind(**values)
    except (ValidationError, TypeError) as error:
        message = _explain(error, "setting {}") if isinstance(error, ValidationError) else "is no list of settings"
        raise InputError(f"{path}: {message}") from error


def config_values(config: AnyConfig) -> dict[str, Any]:
    """The configuration as plain values, `workflow` first."""
    return {"workflow": config.workflow, **config.model_dump(mode="json")}


def _explain(error: ValidationError, name: str) -> str:
    first = error.errors()[0]
    setting = ".".join(str(part) for part in first["loc"])
    if name.startswith("--"):
        setting = setting.replace("_", "-")
    if first["type"] == "extra_forbidden":
        return f"{name.format(setting)} is unknown; remove it"
    return f"{name.format(setting)} {reprlib.repr(first['input'])}: {first['msg'][0].lower()}{first['msg'][1:]}"
