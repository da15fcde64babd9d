"""One actor of the Ray engine: it embeds, measures batches and searches, as the local engine does."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray

from curate.config import BuildConfig
from curate.embedders import Embedder, Embeddings, open_embedder
from curate.inputs import Inputs, resolve_inputs
from curate.leaks import Matches, ProtectedIndex
from curate.reference import Reference
from curate.stream import measured_batches
from srood.errors import InputError


@dataclass(frozen=True)
class Order:
    """What an actor gets to know of a build.

    Attributes:
        inputs: those of the driver; each actor opens the embedder itself
        node: where they were found
        folder: the driver's, to which relative paths lead
        data: the driver's $SROOD_DATA, taken where an actor's machine does not set its own
    """

    config: BuildConfig
    inputs: Inputs
    node: str
    folder: str
    data: str | None


def without_embedder(inputs: Inputs) -> Inputs:
    """The inputs as they can be sent to another process."""
    return replace(inputs, embedder=Embedder(inputs.embedder.name, inputs.embedder.fingerprint, _not_opened))


def _not_opened(images: np.ndarray) -> Embeddings:
    raise AssertionError("the embedder of inputs that were sent is opened first")


class Worker:
    """The actor. Large things come as references in a list, so that an actor takes each once and keeps it."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._config = order.config
        self._inputs: Inputs | None = None
        self._kept: tuple[ray.ObjectRef | None, Any] = (None, None)
        self._batches: Iterator[tuple[int, dict[str, np.ndarray]]] = iter(())
        self._next = -1  # the number of the batch that `_batches` gives next

    def open(self) -> None:
        """Open the inputs.

        Raises:
            InputError: they cannot be opened on this machine, or are others than the driver's.
        """
        if os.path.isdir(self._order.folder):
            os.chdir(self._order.folder)
        if self._order.data:
            os.environ.setdefault("SROOD_DATA", self._order.data)
        given = self._order.inputs
        if ray.get_runtime_context().get_node_id() == self._order.node:
            self._inputs = replace(given, embedder=open_embedder(self._config.embedder))
            return
        try:
            found = resolve_inputs(self._config)
        except InputError as error:
            raise InputError(f"on {socket.gethostname()}, a machine of the Ray cluster: {error}") from error
        if found.recipe != given.recipe:
            raise InputError(
                f"--engine ray: on {socket.gethostname()} the images, files or software are others than here; "
                "every machine needs the same at the same paths"
            )
        self._inputs = found

    def embed(self, images: np.ndarray) -> Embeddings:
        """The embedder on (N, H, W, 3) uint8 images."""
        assert self._inputs is not None
        return self._inputs.embedder.embed(images)

    def measure(
        self, reference: list[ray.ObjectRef], number: int, source: int, start: int, count: int
    ) -> dict[str, np.ndarray]:
        """Batch `number`, which begins at row `start` of set `source`, first of `count` that will be asked for.

        Batches in order are read in one go, decoded ahead; others cost a search for the place.
        """
        assert self._inputs is not None
        if number != self._next:
            self._batches = iter(())  # ends the threads of the batches before
            known: Reference = self._keep(reference)
            if known.protected is not None:
                known.protected.workers = self._config.workers or 1
            self._batches = measured_batches(self._config, self._inputs, known, source, start, number, count)
        self._next = -1  # where it fails, it begins anew
        found, batch = next(self._batches)
        assert found == number
        self._next = number + 1 if count > 1 else -1
        return batch

    def search_within(self, index: list[ray.ObjectRef], first: int, descriptors: np.ndarray) -> Matches:
        """The pairs of rows `first` and on, as many as there are `descriptors`, with any row of the set."""
        self._batches, self._next = iter(()), -1  # with the index of protected images, which is not needed any more
        known: ProtectedIndex = self._keep(index)
        known.workers = self._config.workers or 1
        rows = slice(first, first + len(descriptors))
        return known.search(known.images[rows], descriptors, within=True, first=first)

    def _keep(self, references: list[ray.ObjectRef]) -> Any:
        """What is referred to; of arrays there is one copy a machine, in Ray's shared memory."""
        if self._kept[0] != references[0]:
            self._kept = (None, None)
            self._kept = (references[0], ray.get(references[0]))
        return self._kept[1]
