"""Where bfloat16 pays (on hardware that computes in it), and where it does not."""

from __future__ import annotations

import torch
from torch import Tensor


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; without them it is emulated, many times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, check, bool)() for check in checks)


def full_precision(x: Tensor) -> Tensor:
    """`x` in float32 where it is bfloat16 or float16, else as it is (float64 for finite differences, say)."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
