"""Names of devices, resolved to what the machine has."""

from __future__ import annotations

import torch

from srood.errors import InputError


def resolve_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` to a device that is there.

    Raises:
        InputError: an unknown name, or a device that this machine or this torch does not have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device {name}: is unknown; choose auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise InputError(f"--device {name}: torch sees {count} CUDA devices here; give --device cpu")
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and torch.backends.mps.is_available():
        return device
    raise InputError(f"--device {name}: is not available here; choose auto, cpu, cuda, cuda:N or mps")
