"""Names of devices and precisions, resolved to what the machine has."""

from __future__ import annotations

import importlib.util
import logging
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from srood.devices import resolve_device
from srood.errors import InputError
from srood.precision import computes_bf16
from train.config import PRECISIONS, TrainConfig

Config = TypeVar("Config", bound=TrainConfig)

# Fabric announces the precision on every set-up; the commands say it themselves
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def resolve_precision(name: str, device: torch.device) -> str:
    """``auto`` to ``bf16-mixed`` where the device computes in bfloat16, else to ``32-true``.

    Raises:
        InputError: an unknown name.
    """
    if name not in PRECISIONS:
        raise InputError(f"--precision {name}: is unknown; choose {', '.join(PRECISIONS)}")
    if name != "auto":
        return name
    return "bf16-mixed" if computes_bf16(device) else "32-true"


def placed(config: Config) -> Config:
    """A configuration with its device and precision resolved.

    Raises:
        InputError: either is unknown or not available here, or there are fewer devices than asked for.
    """
    device = resolve_device(config.device)
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise InputError("--tensorboard: needs TensorBoard: pip install 'srood[tensorboard]'")
    if config.devices > 1:
        if ":" in config.device and config.device != "cuda:0":
            raise InputError(f"--device {config.device}: is one device, --devices asks for {config.devices}; give cuda")
        if device.type not in ("cpu", "cuda"):
            raise InputError(f"--devices {config.devices}: several devices are CUDA devices or CPU processes; give one")
        if device.type == "cuda" and config.devices > torch.cuda.device_count():
            raise InputError(f"--devices {config.devices}: torch sees {torch.cuda.device_count()} CUDA devices here")
    precision = resolve_precision(config.precision, device)
    return config.model_copy(update={"device": str(device), "precision": precision})


def make_fabric(device: torch.device, precision: str, devices: int = 1) -> Fabric:
    """Fabric in a resolved precision, for one device or for `devices` processes (DDP) of its kind."""
    if devices > 1:
        strategy = DDPStrategy(start_method="spawn")
        return Fabric(accelerator=device.type, devices=devices, strategy=strategy, precision=precision)  # type: ignore[arg-type]
    chosen = [device.index or 0] if device.type == "cuda" else 1
    return Fabric(accelerator=device.type, devices=chosen, precision=precision)  # type: ignore[arg-type]


def describe_device(device: torch.device) -> str:
    """The device for the record, with the name of the GPU."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
