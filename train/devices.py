"""Names of devices and precisions, resolved to what the machine has."""

from __future__ import annotations

import logging
from typing import TypeVar

import torch
from lightning_fabric import Fabric

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
        InputError: either is unknown or not available here.
    """
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    return config.model_copy(update={"device": str(device), "precision": precision})


def make_fabric(device: torch.device, precision: str) -> Fabric:
    """Fabric for one device, in a resolved precision."""
    devices = [device.index or 0] if device.type == "cuda" else 1
    return Fabric(accelerator=device.type, devices=devices, precision=precision)  # type: ignore[arg-type]


def describe_device(device: torch.device) -> str:
    """The device for the record, with the name of the GPU."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
