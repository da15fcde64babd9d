"""Where bfloat16 pays: on hardware that computes in it."""

from __future__ import annotations

import torch


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; without them it is emulated, many times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, check, bool)() for check in checks)
