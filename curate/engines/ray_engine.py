"""The stages that need no other batch, on Ray: a pool of actors, on the processors of this machine or of a cluster.

The index of protected images is put into Ray's shared memory once a machine. The driver settles the batches in the
order of the corpus, as the local engine does, and stores them as parts. Ray Data is not used: its blocks have other
bounds than batches, and a batch that lies otherwise could differ in its last bits.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read as Ray is imported and started
try:
    import ray
except ImportError as error:
    from srood.errors import InputError

    raise InputError("--engine ray: needs Ray; install it with `pip install 'srood[ray]'`") from error

from curate.config import BuildConfig
from curate.embedders import BATCH, Embedder, Embeddings
from curate.engines.ray_pool import Call, Pool
from curate.engines.ray_worker import Order, Worker, without_embedder
from curate.inputs import Inputs
from curate.leaks import Matches, ProtectedIndex
from curate.reference import Reference
from curate.sources import batch_counts, batch_place
from srood import stopping
from srood.errors import InputError

RUN = 4  # consecutive batches that an actor reads in one go
SEARCH_ROWS = 4096  # rows whose near-duplicates are searched in one call
WITH_GPU = ("checkpoint", "timm")  # embedders that run on one where there is one
TIMEOUT = 10.0  # seconds to reach a cluster


class RayEngine:
    """Actors on Ray. `prepare` starts or joins Ray, `close` ends what was started."""

    def __init__(self, address: str | None = None) -> None:
        """`address` is HOST:PORT of a cluster's head, or auto for the one that runs here; None starts a Ray of its own.

        A Ray that this process has joined already is used as it is.
        """
        self._address = address
        self._joined = False
        self._pool: Pool | None = None

    def prepare(self, config: BuildConfig, inputs: Inputs) -> Inputs:
        """Start the actors.

        Raises:
            InputError: the cluster cannot be reached or has no machine large enough.
        """
        if not ray.is_initialized():
            _join(self._address)
            self._joined = True
        count, cpus, gpus = _shape(config)
        node = ray.get_runtime_context().get_node_id()
        settings = replace(config, workers=cpus)
        data = os.environ.get("SROOD_DATA")
        order = ray.put(Order(settings, without_embedder(inputs), node, os.getcwd(), data))
        actor = ray.remote(Worker).options(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)
        self._pool = Pool(lambda: actor.remote(order), count)
        return replace(inputs, embedder=Embedder(inputs.embedder.name, inputs.embedder.fingerprint, self._embed))

    def measured_batches(
        self, config: BuildConfig, inputs: Inputs, reference: Reference, source: int, start: int, number: int
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Batches from `number` on, in the order of the corpus."""
        total = sum(batch_counts(inputs.corpus, config.batch_rows))
        if number >= total:
            return
        known = [ray.put(reference)]
        reference.protected = None  # the actors have it

        def runs() -> Iterator[list[Call]]:
            for first in range(number, total, RUN):
                stop = min(first + RUN, total)
                yield [call(batch, stop - batch) for batch in range(first, stop)]

        def call(batch: int, count: int) -> Call:
            source, start = batch_place(inputs.corpus, batch, config.batch_rows)
            what = f"{inputs.corpus.sources[source].name}: the batch from row {start}"
            return Call(what, "measure", (known, batch, source, start, count))

        for batch, answer in enumerate(self._answers(runs()), number):
            yield batch, {name: np.array(values) for name, values in answer.items()}  # frees Ray's memory

    def search_within(self, index: ProtectedIndex, descriptors: np.ndarray | None) -> Matches:
        """The pairs within a set, in parts of its rows."""
        assert descriptors is not None
        known = [ray.put(index)]
        starts = range(0, len(index), SEARCH_ROWS)
        calls = (
            [
                Call(
                    f"near-duplicates of row {first}",
                    "search_within",
                    (known, first, descriptors[first:][:SEARCH_ROWS]),
                )
            ]
            for first in starts
        )
        found = list(self._answers(calls))
        return Matches(
            np.concatenate([part.query + first for part, first in zip(found, starts, strict=True)]),
            *(
                np.concatenate([getattr(part, name) for part in found])
                for name in ("protected", "similarity", "kind", "typical", "largest_left", "nearest_left")
            ),
        )

    def close(self) -> None:
        """Stop the actors; leave the cluster, or end Ray where it was started here."""
        if self._pool is not None and ray.is_initialized():
            self._pool.close()
        if self._joined:
            ray.shutdown()
        self._pool, self._joined = None, False

    def _answers(self, runs: Iterator[list[Call]]) -> Iterator:
        assert self._pool is not None, "prepare comes first"
        return self._pool.answers(runs)

    def _embed(self, images: np.ndarray) -> Embeddings:
        """In parts that are whole batches of the embedder: each row comes with the rows it comes with locally."""
        starts = range(0, max(1, len(images)), BATCH)
        parts = list(self._answers([Call("ID images", "embed", (images[s : s + BATCH],))] for s in starts))
        energy = [part.energy for part in parts if part.energy is not None]
        return Embeddings(np.concatenate([part.vectors for part in parts]), np.concatenate(energy) if energy else None)


def _join(address: str | None) -> None:
    """Start Ray here, or join the cluster at an address.

    Raises:
        InputError: there is no cluster, or it runs another Ray or Python.
    """
    if address is not None and address != "auto":
        _reach(address)
    try:
        with stopping.unchanged():  # Ray would take SIGTERM for itself
            ray.init(address or "local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (Exception, SystemExit) as error:  # Ray raises bare exceptions too, and may end the process
        where = f"--ray-address {address}" if address else "--engine ray"
        reason = " ".join(str(error).split()) or type(error).__name__
        advice = "see that this machine has memory and disk"
        if address:  # Ray sends no token to an address unless it is told to
            advice = "start one with `ray start --head`; if it asks for a token, set RAY_AUTH_MODE=token"
        raise InputError(f"{where}: Ray cannot be used ({reason}); {advice}") from error


def _reach(address: str) -> None:
    """See that something listens at an address: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise InputError(f"--ray-address {address}: is no HOST:PORT; name the head, as `ray start --head` prints it")
    try:
        socket.create_connection((host, int(port)), TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--ray-address {address}: no Ray cluster is there ({error}); start one with `ray start --head`"
        ) from error


def _shape(config: BuildConfig) -> tuple[int, int, int]:
    """How many actors, and the processors and GPUs of each: an actor a GPU where the embedder uses one."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    if sum(gpus) and config.embedder.partition(":")[0] in WITH_GPU:
        with_gpu = [(cpu, gpu) for cpu, gpu in zip(cpus, gpus, strict=True) if gpu]
        each = config.workers or max(1, min(cpu // gpu for cpu, gpu in with_gpu))
        count, gpu = sum(min(cpu // each, gpu) for cpu, gpu in with_gpu), 1
    else:
        each = config.workers or 1
        count, gpu = sum(cpu // each for cpu in cpus), 0
    if not count:
        most = max(cpus, default=0)
        raise InputError(f"--workers {each}: no machine of the Ray cluster has so many processors, but {most}")
    return count, each, gpu
