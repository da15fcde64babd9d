"""The outliers of a run as one process reads them: sets held in memory, and readers of those that do not fit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from srood.outlier_blocks import BlockReader
from train.block_sets import BlockSet
from train.device_images import held_images, sent, taken
from train.plan import StepRows


class OutlierPools:
    """The images of the outlier sets of a run. Use it in one thread, and close it.

    Attributes:
        pools: of each set its images, (M, H, W, 3) uint8, on the device where they fit, or a reader
    """

    def __init__(self, sets: Sequence[Tensor | BlockSet], device: torch.device) -> None:
        self.device = device
        self.pools = [found.reader() if isinstance(found, BlockSet) else held_images(found, device) for found in sets]
        self._counts = [found.opened.num_rows if isinstance(found, BlockSet) else len(found) for found in sets]

    @property
    def reads(self) -> bool:
        """Whether any set is read from disk, which may fail."""
        return any(isinstance(pool, BlockReader) for pool in self.pools)

    @property
    def held(self) -> list[Tensor]:
        """The sets in memory."""
        return [pool for pool in self.pools if isinstance(pool, Tensor)]

    def images(self, rows: StepRows, own: range) -> Tensor:
        """The outliers of a step that stand at `own` among its rows, (len(own), H, W, 3) uint8 on the device.

        Raises:
            InputError: a shard cannot be read.
        """
        if len(self.pools) == 1:
            return self._taken(0, rows, rows.outliers[own.start : own.stop], own.start)
        parts, places, first = [], [], 0
        numbers = rows.outliers[own.start : own.stop]
        for number, count in enumerate(self._counts):
            inside = ((numbers >= first) & (numbers < first + count)).nonzero().flatten()
            before = rows.outliers[: own.start]
            drawn = int(((before >= first) & (before < first + count)).sum())
            parts.append(self._taken(number, rows, numbers[inside] - first, drawn))
            places.append(inside)
            first += count
        back = torch.cat(places).argsort()
        return taken(torch.cat(parts), back, self.device)

    def _taken(self, number: int, rows: StepRows, wanted: Tensor, drawn: int) -> Tensor:
        """Rows of one set, numbered from its first; `drawn` of the step's rows of this set come before them."""
        pool = self.pools[number]
        if isinstance(pool, Tensor):
            return taken(pool, wanted, self.device)
        span = rows.spans[number]
        assert span is not None
        start = span[0] + drawn
        return sent(torch.from_numpy(pool.between(start, start + len(wanted))), self.device)

    def close(self) -> None:
        """End the readers."""
        for pool in self.pools:
            if isinstance(pool, BlockReader):
                pool.close()
