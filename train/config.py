"""Every setting of a training run, with the paper's defaults; unknown settings are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from srood import manifests
from srood.errors import InputError

Precision = Literal["auto", "32-true", "bf16-mixed"]
PRECISIONS = ("auto", "32-true", "bf16-mixed")
CONFIG_FILE = "config.yaml"


class TrainConfig(BaseModel):
    """What pretraining and tuning have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    id: str = "cifar10"  # named set, or a folder (with train/ and test/ if it has them)
    model: str = "wrn-40-2"
    image_size: int = Field(32, ge=8, le=256)
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(128, ge=1)  # ID images a step; the last batch of an epoch may be smaller
    lr: float = Field(0.001, gt=0, allow_inf_nan=False)  # at the first step, then cosine per step
    final_lr: float = Field(1e-6, ge=0, allow_inf_nan=False)  # where the cosine ends
    momentum: float = Field(0.9, ge=0, lt=1)  # Nesterov
    weight_decay: float = Field(5e-4, ge=0, allow_inf_nan=False)
    crop_padding: int = Field(4, ge=0, le=64)  # black pixels on each side before the random crop
    seed: int = Field(0, ge=0, lt=2**63)
    device: str = "auto"  # auto, cpu, cuda, cuda:N, mps
    precision: Precision = "auto"  # auto: bf16-mixed where the device computes in bfloat16, else 32-true
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


class TuneConfig(TrainConfig):
    """Tuning a pretrained classifier, with outliers (SROE) or without (SR)."""

    checkpoint: Path | None = None  # run folder or weights file; None: the newest pretrained run, or a new one
    outliers: Path | None = None  # manifest of an outlier set
    outlier_batch_size: int = Field(256, ge=1)
    alpha: float = Field(0.02, ge=0, allow_inf_nan=False)  # weight of the sparsity term
    beta: float = Field(0.5, ge=0, allow_inf_nan=False)  # weight of the outlier term

    @property
    def workflow(self) -> str:
        """``sroe`` with outliers, ``sr`` without."""
        return "sr" if self.outliers is None else "sroe"


WORKFLOWS: dict[str, type[PretrainConfig] | type[TuneConfig]] = {
    "pretrain": PretrainConfig,
    "sr": TuneConfig,
    "sroe": TuneConfig,
}


def make_config(kind: type[PretrainConfig] | type[TuneConfig], settings: dict[str, Any]) -> Any:
    """Build a configuration from plain values.

    Raises:
        InputError: naming the first setting at fault as the command line writes it.
    """
    try:
        return kind(**settings)
    except ValidationError as error:
        raise InputError(_explain(error, "--{}")) from error


def read_config(run: Path) -> PretrainConfig | TuneConfig:
    """The configuration that a run was started with.

    Raises:
        InputError: no such run, or a configuration with unknown or impossible settings.
    """
    path = run / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"{run}: is not a run folder (it holds no {CONFIG_FILE}); check the path")
    values = manifests.read_yaml(path)
    workflow = values.pop("workflow", None) if isinstance(values, dict) else None
    if workflow not in WORKFLOWS:
        raise InputError(f"{path}: workflow is {workflow!r}, not one of {', '.join(WORKFLOWS)}")
    try:
        return WORKFLOWS[workflow](**values)
    except (ValidationError, TypeError) as error:
        message = _explain(error, "setting {}") if isinstance(error, ValidationError) else str(error)
        raise InputError(f"{path}: {message}") from error


def config_values(config: PretrainConfig | TuneConfig) -> dict[str, Any]:
    """The configuration as plain values, `workflow` first."""
    return {"workflow": config.workflow, **config.model_dump(mode="json")}


def _explain(error: ValidationError, name: str) -> str:
    first = error.errors()[0]
    setting = ".".join(str(part) for part in first["loc"])
    if name.startswith("--"):
        setting = setting.replace("_", "-")
    if first["type"] == "extra_forbidden":
        return f"{name.format(setting)} is unknown; remove it"
    return f"{name.format(setting)} {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"
