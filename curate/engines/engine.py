"""What a build asks of an engine, and the engine that needs nothing but this process.

An engine changes the speed and nothing else: the set and its evidence have the same bytes, and an interrupted build may
go on with another engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from curate.config import BuildConfig
from curate.dedup import search_within
from curate.inputs import Inputs
from curate.leaks import Matches, ProtectedIndex
from curate.reference import Reference
from curate.stream import measured_batches
from srood.errors import InputError

ENGINES = ("local", "ray")


class Engine(Protocol):
    """Where images are embedded, batches measured and near-duplicates searched."""

    def prepare(self, config: BuildConfig, inputs: Inputs) -> Inputs:
        """Get ready for one build; the inputs to go on with, whose embedder runs where the engine does."""
        ...

    def measured_batches(
        self, config: BuildConfig, inputs: Inputs, reference: Reference, source: int, start: int, number: int
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """As `curate.stream.measured_batches`, in the order of the corpus."""
        ...

    def search_within(self, index: ProtectedIndex, descriptors: np.ndarray | None) -> Matches:
        """As `curate.dedup.search_within`."""
        ...


class LocalEngine:
    """This process and its threads."""

    def prepare(self, config: BuildConfig, inputs: Inputs) -> Inputs:
        """The inputs as they are."""
        return inputs

    def measured_batches(
        self, config: BuildConfig, inputs: Inputs, reference: Reference, source: int, start: int, number: int
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Batches measured here, decoded ahead on threads."""
        return measured_batches(config, inputs, reference, source, start, number)

    def search_within(self, index: ProtectedIndex, descriptors: np.ndarray | None) -> Matches:
        """The pairs within a set."""
        return search_within(index, descriptors)


@contextmanager
def open_engine(name: str, ray_address: str | None = None) -> Iterator[Engine]:
    """The engine of this name; what it started is stopped in the end.

    Raises:
        InputError: no such engine, Ray is not installed, or an address without Ray.
    """
    if name not in ENGINES:
        raise InputError(f"--engine {name}: is unknown; choose one of {', '.join(ENGINES)}")
    if name == "local":
        if ray_address is not None:
            raise InputError(f"--ray-address {ray_address}: needs --engine ray")
        yield LocalEngine()
        return
    from curate.engines.ray_engine import RayEngine

    engine = RayEngine(ray_address)
    try:
        yield engine
    finally:
        engine.close()
