"""What a result was measured on: processor, cores, GPU and versions."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from srood.devices import resolve_device
from train.runs import versions


def environment(device: str) -> dict[str, Any]:
    """Hardware and software, as plain values; ``gpu`` is None where none was used."""
    on = resolve_device(device)
    return {
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(on) if on.type == "cuda" else None,
        "device": on.type,
        "system": platform.system(),
        "versions": versions(),
    }


def processor() -> str:
    """The model of the processor as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
