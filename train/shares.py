"""Which part of a step's batch a process computes, and how the outputs of all processes become one batch again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """Consecutive rows of a step: those of one part of its batch, and within them those of one process.

    Attributes:
        total: rows of the step
        part: rows of the part
        own: rows of this process
    """

    total: int
    part: range
    own: range

    @property
    def offset(self) -> int:
        """Where the rows of this process begin in the part."""
        return self.own.start - self.part.start


def share_of(total: int, parts: int, part: int, fabric: Fabric) -> Share:
    """The share of this process in one of `parts` parts of `total` rows."""
    rows = range(total)[divided(total, parts, part)]
    return Share(total, rows, rows[divided(len(rows), fabric.world_size, fabric.global_rank)])


def divided(count: int, parts: int, part: int) -> slice:
    """The one of `parts` nearly equal parts of `count` consecutive rows."""
    return slice(count * part // parts, count * (part + 1) // parts)


def joined(rows: Tensor, shares: tuple[Share, ...], fabric: Fabric) -> Tensor:
    """Rows of all processes: for each of `shares` its part whole, one after the other.

    Every process computes the loss of the whole part from them, so any loss is that of one process with the joint
    batch. Gradients: each process's rows get the sum of the gradients of all processes, and DDP takes the mean.

    Args:
        rows: (n, D), for each of `shares` the rows of this process
    """
    if fabric.world_size == 1:
        return rows
    pieces = []
    for share, own in zip(shares, rows.split([len(share.own) for share in shares]), strict=True):
        after = len(share.part) - share.offset - len(own)
        pieces.append(torch.nn.functional.pad(own, (0, 0, share.offset, after)))  # zeros where others have their rows
    return summed(torch.cat(pieces))


def summed(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes; its gradient is the sum of their gradients."""
    return _Summed.apply(value)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        torch.distributed.all_reduce(total)
        return total


def largest(value: float, fabric: Fabric) -> int:
    """The largest of a number that every process has its own of, so that all decide alike."""
    if fabric.world_size == 1:
        return int(value)
    found = fabric.all_reduce(torch.tensor(int(value), device=fabric.device), reduce_op="max")
    assert isinstance(found, Tensor)
    return int(found)
