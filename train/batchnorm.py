"""Batch norm over rows of choice while training: all rows, or the ID rows alone, and over all processes.

An evaluated or exported classifier has plain batch norm: parameters, running statistics and their names are the same.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from srood.errors import InputError
from train.shares import summed


class BatchNorm(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` whose batch statistics are those of the first rows, over all processes.

    In training, with rows S that the statistics are taken of, y = (x - mean_S) / sqrt(var_S + eps) * weight + bias for
    every row of x. The gradient also flows through mean_S and var_S (Ioffe and Szegedy, ICML 2015).

    Attributes:
        rows: how many of the rows of this process count, from the first; None for all
        shared: whether the statistics are those of all processes together
    """

    rows: int | None = None
    shared: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape and type."""
        if not self.training or (self.rows is None and not self.shared):
            return super().forward(x)
        part = x if self.rows is None else x[: self.rows]
        if self.shared:
            part = part.float()
            count = torch.full((), part.numel() / part.shape[1], device=part.device)  # not a copy that is waited for
            count, mean, var = _joint_statistics(part, count)
            scale = self.weight * torch.rsqrt(var + self.eps)
            shift = self.bias - mean * scale
            y = torch.addcmul(shift[:, None, None], x.float(), scale[:, None, None]).to(x.dtype)
            unbiased = var * (count / (count - 1).clamp(min=1))
        else:
            mean, unbiased = _statistics(part.detach())
            y = _OfFirstRows.apply(x, self.weight, self.bias, mean, unbiased, len(part), self.eps)
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        return y


class _OfFirstRows(torch.autograd.Function):
    """Batch norm of all rows by the statistics of the first; the gradient of these by torch's kernels.

    With g the gradient of y and x^ the normalised rows, m values in a channel of the first rows S: every row has
    g * weight / sigma, and rows of S have less weight / (sigma * m) * (sum g + x^ * sum g x^), sums over all rows
    (Ioffe and Szegedy, ICML 2015, section 3, where S are all rows).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, unbiased: Tensor, rows: int, eps: float
    ) -> Tensor:
        values = rows * x[0, 0].numel()
        var = unbiased * ((values - 1) / values)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.rows, ctx.values, ctx.eps = rows, values, eps
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        # training=False: of every row as if the statistics were constants
        dx, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        inverse = torch.rsqrt(var + ctx.eps)
        slope = -weight * inverse.square() * dweight / ctx.values
        constant = -weight * inverse * dbias / ctx.values - slope * mean
        own = dx[: ctx.rows]
        own += torch.addcmul(constant[:, None, None], x[: ctx.rows], slope[:, None, None]).to(dx.dtype)
        return dx, dweight, dbias, None, None, None, None


def _statistics(part: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance of each channel, (C,) float32, by torch's batch norm: `torch.var_mean` is slower."""
    mean, unbiased = (torch.zeros(part.shape[1], device=part.device) for _ in range(2))
    F.batch_norm(part, mean, unbiased, training=True, momentum=1.0)
    return mean, unbiased


def _joint_statistics(part: Tensor, own: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and biased variance of each channel over the rows of all processes; differentiable."""
    count = summed(own)
    mean = summed(part.sum(dim=(0, 2, 3))) / count
    # from the mean, as a difference of two large sums would lose digits
    var = summed((part - mean[:, None, None]).square().sum(dim=(0, 2, 3))) / count
    return count, mean, var


class BatchNormAct(BatchNorm):
    """The same for timm's BatchNormAct2d, which goes on with dropout and an activation."""

    act: nn.Module
    drop: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape and type."""
        return self.act(self.drop(super().forward(x)))


def check_rows(model: nn.Module, id_only: bool, shared: bool) -> None:
    """Check that the batch norm layers of a model are of a kind whose rows can be chosen, where that is wanted.

    Raises:
        InputError: naming the first that is not.
    """
    for name, module in model.named_modules():
        if not (id_only or shared) or not isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        if type(module) is not nn.BatchNorm2d and type(module).__name__ != "BatchNormAct2d":
            option = "--batch-norm id" if id_only else "--devices"
            raise InputError(f"{option}: layer {name} is a {type(module).__name__}, whose rows cannot be chosen")


def choose_rows(model: nn.Module, id_only: bool, shared: bool) -> list[BatchNorm]:
    """Make the batch norm layers of a model `BatchNorm`, where statistics of some rows or processes are wanted.

    Returns:
        the layers whose `rows` are to be set at every step: all with `id_only`, none without.

    Raises:
        InputError: as `check_rows`.
    """
    check_rows(model, id_only, shared)
    if not id_only and not shared:
        return []
    layers: list[BatchNorm] = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = BatchNorm if type(module) is nn.BatchNorm2d else BatchNormAct
            assert isinstance(module, BatchNorm)
            module.shared = shared
            layers.append(module)
    return layers if id_only else []
