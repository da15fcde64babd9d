"""Figures of a table's rows, over seeds: what tables and plots show, in per cent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.reproduce import made_sets
from train.reproduce.documents import CellResult, Document
from train.reproduce.experiments import MEAN, Metric
from train.reproduce.statistics import Estimate, estimate, paired


@dataclass(frozen=True)
class Row:
    """A method on a network and an ID set under a protocol, with its cells of all seeds."""

    protocol: str
    id_set: str
    network: str
    method: str
    cells: tuple[CellResult, ...]

    @property
    def done(self) -> list[CellResult]:
        """The cells that have figures."""
        return [cell for cell in self.cells if cell.status == "done"]

    @property
    def state(self) -> str:
        """``done``, or what is said in the place of figures."""
        if self.done:
            return "done"
        return next((word for word in ("failed", "missing") if any(c.status == word for c in self.cells)), "not run")


def rows_of(document: Document) -> list[Row]:
    """The rows of a document in the order of its cells."""
    found: dict[tuple[str, str, str, str], list[CellResult]] = {}
    for cell in document.cells:
        found.setdefault((cell.protocol, cell.id_set, cell.network, cell.method), []).append(cell)
    return [Row(*key, tuple(cells)) for key, cells in found.items()]


def places(document: Document) -> dict[str, tuple[str, ...]]:
    """What a table has figures of: OOD sets where the experiment wants them one by one, groups, and the mean.

    Returns:
        the OOD sets of each, those that some cell has or misses.
    """
    sets = list(dict.fromkeys(name for cell in document.cells for name in (*cell.ood, *cell.missing)))
    groups = {
        name: tuple(one for one in map(made_sets.shown, members) if one in sets)
        for name, members in document.experiment.groups.items()
    }
    single = {name: (name,) for name in sets} if document.experiment.by_set else {}
    return {**single, **{name: members for name, members in groups.items() if members}, MEAN: tuple(sets)}


def value(cell: CellResult, metric: Metric, sets: Sequence[str]) -> float | None:
    """A metric's plain mean over those of some OOD sets that a cell has, in per cent; None where it has none."""
    if metric == "id_error":
        return None if cell.id_accuracy is None else 100 * (1 - cell.id_accuracy)
    found = [cell.ood[name][metric] for name in sets if name in cell.ood]
    return 100 * float(np.mean(found)) if found else None


def by_seed(row: Row, metric: Metric, sets: Sequence[str]) -> dict[int, float]:
    """A metric of each seed."""
    found = {cell.seed: value(cell, metric, sets) for cell in row.done}
    return {seed: number for seed, number in found.items() if number is not None}


def over_seeds(row: Row, metric: Metric, sets: Sequence[str]) -> Estimate | None:
    """A metric over seeds, or None where no cell has it."""
    found = list(by_seed(row, metric, sets).values())
    return estimate(found) if found else None


def against(row: Row, control: Row | None, metric: Metric, sets: Sequence[str]) -> Estimate | None:
    """A metric less the control's, seed by seed."""
    if control is None or control.method == row.method:
        return None
    return paired(by_seed(row, metric, sets), by_seed(control, metric, sets))


def control_of(row: Row, rows: Sequence[Row], document: Document) -> Row | None:
    """The row that another is compared with."""
    name = document.experiment.control
    key = (row.protocol, row.id_set, row.network, name)
    return next((one for one in rows if (one.protocol, one.id_set, one.network, one.method) == key), None)


def published(row: Row, document: Document, place: str, metric: Metric) -> float | None:
    """The published value, in per cent, or None."""
    of_network = document.experiment.published.get(row.id_set, {}).get(row.network, {})
    return of_network.get(row.method, {}).get(place, {}).get(metric)


def had(row: Row, sets: Sequence[str]) -> tuple[int, int]:
    """Of how many OOD sets there are figures, and of how many there should be."""
    done = row.done
    return (sum(name in done[0].ood for name in sets), len(sets)) if done else (0, len(sets))
