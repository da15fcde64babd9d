"""uint8 images on the device of a run where they fit, else in main memory, and copies that nobody waits for."""

from __future__ import annotations

import torch
from torch import Tensor

HELD_PART = 0.5  # of a GPU's free memory; the network needs the rest


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on a device; the copy to a GPU is queued there, so that this process goes on."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)  # of memory that is not pinned a copy is waited for


def held_images(images: Tensor, device: torch.device) -> Tensor:
    """Images on the device, or as they are where they take more than half of its free memory."""
    return images.to(device) if images.nbytes <= HELD_PART * free_bytes(device) else images


def taken(images: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """Rows of images, wherever these are held, on the device; `rows` are (n,) int64 on the CPU."""
    return sent(images.index_select(0, sent(rows, images.device)), device)


def free_bytes(device: torch.device) -> float:
    """Free memory of a GPU; no bound where images are in main memory anyway."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")
