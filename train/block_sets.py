"""Outlier sets that do not fit in memory: which these are, in what windows they are read, what is held out of them.

What decides the rows of a step goes into the run's configuration (`outlier_blocks`), so that a run goes on with the
same rows on another machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srood.block_order import BlockOrder
from srood.commands import parse_bytes
from srood.errors import InputError
from srood.outlier_blocks import BlockReader, block_order, default_block_rows, read_blocks
from srood.outliers import CHUNK_ROWS, OutlierSet
from srood.shuffle_quality import shuffle_quality
from train.batches import OUTLIER_ORDER, VALIDATION, derived_seed
from train.config import BlockSettings, TuneConfig, outlier_weight
from train.plan import shares_of

WINDOW_BLOCKS = 8  # at least; fewer rows a block in small windows
HELD_OUT_PART = 4  # held-out rows take this part of a set's memory at the most: a quarter


@dataclass(frozen=True)
class BlockSet:
    """An outlier set of a run that is read in blocks.

    Attributes:
        opened: the set
        settings: windows, blocks, and how many blocks are held out
        seed: of the order and of what is held out
        shuffled: False for the stored order
    """

    opened: OutlierSet
    settings: BlockSettings
    seed: int
    shuffled: bool

    @cached_property
    def held_out(self) -> tuple[int, ...]:
        """Numbers of the blocks that are held out, ascending: a function of the set, the settings and the seed."""
        blocks = len(self._every_block.blocks)
        rng = np.random.default_rng(derived_seed(self.seed, VALIDATION))
        return tuple(sorted(rng.permutation(blocks)[: self.settings.held_out_blocks].tolist()))

    @cached_property
    def order(self) -> BlockOrder:
        """Which rows make up a step; those of held-out blocks never do."""
        return block_order(self.opened, *self._sizes, self.held_out, self.shuffled)

    def reader(self) -> BlockReader:
        """A reader of the set in this order."""
        return BlockReader(self.opened, *self._sizes, self.held_out, self.shuffled)

    def held_out_images(self) -> Tensor:
        """The rows of the held-out blocks, (m, H, W, 3) uint8."""
        return torch.from_numpy(read_blocks(self.opened, self._every_block.blocks[list(self.held_out)]))

    @property
    def _sizes(self) -> tuple[int, int, int]:
        return self.settings.window_rows, self.seed, self.settings.block_rows

    @property
    def _every_block(self) -> BlockOrder:
        return block_order(self.opened, *self._sizes)


def block_sets(config: TuneConfig, sets: Sequence[OutlierSet]) -> list[BlockSet | None]:
    """How each set of a resolved configuration is read; None where it is held in memory.

    Raises:
        InputError: ``config.outlier_blocks`` is not of these sets, or does not go with another option.
    """
    settings = config.outlier_blocks or (None,) * len(sets)
    if len(settings) != len(sets):
        raise InputError(f"outlier_blocks: has {len(settings)} entries for {len(sets)} sets; leave it out")
    if config.reselect and any(settings):
        raise InputError(f"outlier_blocks: --reselect {config.reselect} needs all sets in memory; leave one out")
    for found, how in zip(sets, settings, strict=True):
        blocks = 0 if how is None else len(block_order(found, how.window_rows, 0, how.block_rows).blocks)
        if how is not None and how.held_out_blocks >= blocks:
            raise InputError(
                f"outlier_blocks: holds out {how.held_out_blocks} of the {blocks} blocks of {found.path}; lower "
                "held_out_blocks"
            )
    return [
        None
        if how is None
        else BlockSet(found, how, derived_seed(config.seed, OUTLIER_ORDER, number), config.outlier_order == "shuffled")
        for number, (found, how) in enumerate(zip(sets, settings, strict=True))
    ]


def choose_blocks(config: TuneConfig, sets: Sequence[OutlierSet]) -> TuneConfig:
    """A configuration that says which sets are read in blocks, and in which.

    All sets are held in memory where they fit into ``config.outlier_memory`` together. Else the smallest are, as long
    as they take no more than half of it, and the others share what is left in proportion to their size: two windows
    each, and with ``config.validation`` up to a quarter for what is held out.

    Raises:
        InputError: the memory is too little for a window, or an option needs the set in memory.
    """
    memory = parse_bytes(config.outlier_memory, "--outlier-memory")
    if config.outlier_blocks:
        block_sets(config, sets)  # checks them
        return config
    sizes = [found.num_rows * _row_bytes(found) for found in sets]
    if sum(sizes) <= memory:
        return config
    held, left = set(), memory
    for number in sorted(range(len(sets)), key=lambda number: sizes[number]):
        if memory - left + sizes[number] > memory // 2:
            break
        held.add(number)
        left -= sizes[number]
    large = [number for number in range(len(sets)) if number not in held]
    shares = shares_of([outlier_weight(spec)[1] for spec in config.outliers], config.outlier_batch_size)
    chosen: list[BlockSettings | None] = [None] * len(sets)
    for number in large:
        if config.reselect:
            raise InputError(
                f"--reselect {config.reselect}: draws single rows of {sets[number].path}, which does not fit into "
                f"--outlier-memory {config.outlier_memory}; give {_gigabytes(sum(sizes))}, or make a smaller set with "
                "`curate select`"
            )
        part = left * sizes[number] // sum(sizes[other] for other in large)
        chosen[number] = _settings(config, sets[number], part, shares[number], memory / max(part, 1))
    return config.model_copy(update={"outlier_blocks": tuple(chosen)})


def _settings(config: TuneConfig, opened: OutlierSet, memory: int, share: int, scale: float) -> BlockSettings:
    """Windows of a set in so many bytes; the whole memory is `scale` times that."""
    row = _row_bytes(opened)
    block = min(default_block_rows(opened), max(1, memory // (2 * row) // WINDOW_BLOCKS))
    if block > CHUNK_ROWS:
        block -= block % CHUNK_ROWS
    held_out = 0
    if config.validation > 0:
        blocks = len(block_order(opened, block, 0, block).blocks)
        held_out = max(1, min(round(config.validation * blocks), memory // HELD_OUT_PART // (block * row)))
    window = (memory - held_out * block * row) // (2 * row)
    if window < max(share, block):
        needed = scale * 2 * row * max(share, WINDOW_BLOCKS) * (HELD_OUT_PART / (HELD_OUT_PART - 1))
        raise InputError(
            f"--outlier-memory {config.outlier_memory}: is too little for two windows of {opened.path}, of which a "
            f"step takes {share} rows; give at least {int(needed) // 1_000_000 + 1}MB"
        )
    return BlockSettings(window_rows=window, block_rows=block, held_out_blocks=held_out)


def describe_reading(found: BlockSet | None, share: int) -> dict[str, Any]:
    """For the record of a run: how a set is read, and how well a step's `share` of it is shuffled."""
    if found is None:
        return {"read": "in memory"}
    order, quality = found.order, shuffle_quality(found.order, share)
    entry = {"blocks": len(order.blocks), "block_rows": order.block_rows, "windows": order.windows}
    entry |= {"window_rows": found.settings.window_rows, "held_out_rows": found.opened.num_rows - order.rows}
    if not found.shuffled:
        return {"read": "in stored order from disk", **entry}
    figures = {name: round(value, 6) for name, value in vars(quality).items()}
    return {"read": "in shuffled blocks", **entry, "shuffle_quality": {"batch_rows": share, **figures}}


def reading_sentence(entry: dict[str, Any]) -> str:
    """The same for a person, for one entry of a run's outlier sets."""
    if "blocks" not in entry:
        return f"{entry['file']}: {entry['rows']:,} rows held in memory"
    text = (
        f"{entry['file']}: {entry['rows']:,} rows read {entry['read']}: {entry['blocks']:,} blocks of "
        f"{entry['block_rows']:,}, {entry['windows']:,} windows of up to {entry['window_rows']:,} rows"
    )
    if entry["held_out_rows"]:
        text += f", {entry['held_out_rows']:,} rows held out"
    quality = entry.get("shuffle_quality")
    if quality is None:
        return text
    return (
        f"{text}; the {quality['batch_rows']} rows of a step are of {quality['blocks_per_batch']:.1f} blocks (full "
        f"shuffle: {quality['full_blocks_per_batch']:.1f}), rank correlation of stored and drawn order "
        f"{quality['rank_correlation']:.2g} (full shuffle: {quality['full_rank_correlation']:.2g})"
    )


def _row_bytes(opened: OutlierSet) -> int:
    return int(np.prod(opened.image_shape))


def _gigabytes(count: int) -> str:
    return f"{-(-count // 10_000_000) / 100:.2f}GB"
