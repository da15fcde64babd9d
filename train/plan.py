"""Which rows make up each step of a run: a function of the settings, the counts and the step alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from srood.block_order import BlockOrder
from srood.errors import InputError
from train import batches
from train.config import AnyConfig, TuneConfig


@dataclass(frozen=True)
class StepRows:
    """The rows of one step.

    Attributes:
        id: of the ID images, (n,) int64
        outliers: of all outlier sets, numbered one after the other, (m,) int64
        spans: for each set that is read in blocks where its rows stand in the stream of its order, for others None;
            empty where no set is
    """

    id: Tensor
    outliers: Tensor
    spans: tuple[tuple[int, int] | None, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The order of a run's images.

    Attributes:
        id_count: ID images to train on
        outlier_counts: rows of each outlier set to train on
        orders: of each set that is read in blocks, None of others; empty where no set is
        shares: outliers a step of each outlier set
        epoch_steps: steps of an epoch
        total: steps of the run
        scheduled: steps over which the learning rate falls; more than `total` where epochs end with the outliers
    """

    config: AnyConfig
    id_count: int
    outlier_counts: tuple[int, ...] = ()
    shares: tuple[int, ...] = ()
    orders: tuple[BlockOrder | None, ...] = ()
    epoch_steps: int = field(init=False)
    total: int = field(init=False)
    scheduled: int = field(init=False)

    def __post_init__(self) -> None:
        config, id_steps = self.config, batches.steps_per_epoch(self.id_count, self.config.batch_size)
        epoch_steps = id_steps
        if self.ends_early:
            shortest = min(batches.steps_per_epoch(n, k) for n, k in zip(self.outlier_counts, self.shares, strict=True))
            epoch_steps = min(id_steps, shortest)
        limit = config.max_steps or config.epochs * id_steps
        object.__setattr__(self, "epoch_steps", epoch_steps)
        object.__setattr__(self, "total", min(config.epochs * epoch_steps, limit))
        object.__setattr__(self, "scheduled", min(config.epochs * id_steps, limit))

    @property
    def ends_early(self) -> bool:
        """Whether epochs end with the outliers where these are fewer."""
        config = self.config
        return isinstance(config, TuneConfig) and config.epoch_ends_with == "shorter" and bool(self.outlier_counts)

    def rows(self, step: int, selected: Sequence[Tensor] | None = None) -> StepRows:
        """The rows of a step; `selected` are the rows of each outlier set that the epoch draws from, or None for all.

        Every ID image is seen once an epoch, in a new order; its last batch is smaller rather than dropped or filled
        up. The outliers of a set are an endless stream: all are used before any is used again.
        """
        config, seed = self.config, self.config.seed
        epoch, position = divmod(step, self.epoch_steps)
        order = batches.permutation(self.id_count, seed, batches.ID_ORDER, epoch)
        id_rows = order[position * config.batch_size : (position + 1) * config.batch_size]
        outliers, spans, first = [torch.empty(0, dtype=torch.int64)], [], 0
        for number, (count, share) in enumerate(zip(self.outlier_counts, self.shares, strict=True)):
            assert isinstance(config, TuneConfig)
            stored = config.outlier_order == "stored"
            drawn = self.orders[number] if self.orders else None
            span = None if drawn is None else self._span(step, share, count)
            spans.append(span)
            if drawn is not None and span is not None:
                rows = torch.from_numpy(drawn.rows_between(*span))
            elif selected is not None:  # a stream for each epoch, as its rows are others
                rows = selected[number]
                rows = rows[batches.stream_rows(position, len(rows), share, seed, (number, epoch + 1), stored)]
            elif self.ends_early:
                rows = batches.stream_rows(position, count, share, seed, (number, epoch + 1), stored)
                rows = rows[: count - position * share]  # the last batch is smaller
            else:
                rows = batches.stream_rows(step, count, share, seed, (number, 0), stored)
            outliers.append(rows + first)
            first += count if drawn is None else sum(drawn.shard_rows)
        rows = interleaved(outliers[1:]) if len(outliers) > 2 else torch.cat(outliers)
        return StepRows(id_rows, rows, tuple(spans) if self.orders else ())

    def _span(self, step: int, share: int, count: int) -> tuple[int, int]:
        """Where a step's rows of a set stand in the stream of its order; an epoch that ends early has its own pass."""
        if not self.ends_early:
            return step * share, (step + 1) * share
        epoch, position = divmod(step, self.epoch_steps)
        start = epoch * count + position * share
        return start, min(start + share, (epoch + 1) * count)


def interleaved(parts: Sequence[Tensor]) -> Tensor:
    """The rows of several sets in turn, each in its order, so that every stretch of them has its share of each set."""
    places = torch.cat([(torch.arange(len(part)) + 0.5) / max(len(part), 1) for part in parts])
    return torch.cat(list(parts))[places.argsort(stable=True)]


def shares_of(weights: Sequence[float], batch_size: int) -> tuple[int, ...]:
    """How many outliers a step come from each set: in proportion to the weights, adding up to `batch_size`.

    Raises:
        InputError: a set would get none.
    """
    total, ends, seen = sum(weights), [0], 0.0
    for weight in weights:
        seen += weight
        ends.append(round(batch_size * seen / total))
    shares = tuple(end - start for start, end in pairwise(ends))
    if weights and min(shares) == 0:
        raise InputError(
            f"--outliers: set {shares.index(0) + 1} of {len(weights)} would get none of the {batch_size} outliers of a "
            "step; raise its weight or --outlier-batch-size"
        )
    return shares


def check_parts(config: AnyConfig) -> None:
    """Check that batches can be divided among processes and parts.

    Raises:
        InputError: a batch has fewer images than it has parts.
    """
    sizes = {"--batch-size": config.batch_size}
    if isinstance(config, TuneConfig) and config.outliers:
        sizes["--outlier-batch-size"] = config.outlier_batch_size
    parts = config.accumulate * config.devices
    for option, size in sizes.items():
        if size < parts:
            raise InputError(
                f"{option} {size}: cannot be divided into {config.accumulate} parts for {config.devices} devices; "
                "lower --accumulate or --devices, or raise it"
            )
