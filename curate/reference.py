"""What the corpus is compared with: ID and protected sets, indexed, and the thresholds calibrated on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from curate import leaks, neighbours
from curate.config import BuildConfig
from curate.embedders import Embedder
from curate.inputs import Inputs
from curate.workspace import Workspace
from srood import datasets
from srood.progress import progress_bar

HELD_OUT = 0.1  # of the ID images, where there is no ID test set to calibrate on


@dataclass
class Reference:
    """Indexed ID and protected images, and the thresholds calibrated on them."""

    protected: leaks.ProtectedIndex | None
    copies: leaks.CopyThreshold
    id_index: neighbours.IdIndex
    id_threshold: neighbours.IdThreshold

    def release_protected(self) -> None:
        """Free the index of protected images, the largest thing in memory, once the corpus has been searched."""
        self.protected = None


def prepare_reference(config: BuildConfig, inputs: Inputs, work: Workspace, console: Console) -> Reference:
    """Decode and index the ID and protected sets, and calibrate both thresholds."""
    sources = {source.spec: source for source in (inputs.id_train, inputs.id_test, *inputs.protected) if source}
    with progress_bar("images", console) as progress:
        loaded: dict[str, datasets.Images] = {}
        task = progress.add_task("decode ID and protected sets", total=None, note="")
        for spec in sources:
            progress.update(task, note=spec)
            loaded[spec] = datasets.load_images(spec, config.image_size, config.workers)
            progress.advance(task, len(loaded[spec].images))
        progress.update(task, note="")
        train = loaded[inputs.id_train.spec]

        rng = np.random.default_rng(np.random.SeedSequence([config.seed, 0xCA1]))
        task = progress.add_task("calibrate the copy threshold", total=None, note="")
        copies = leaks.calibrate_copies(_draw(train.images, config.calibration_images, rng), config.seed)
        progress.update(task, note=f"similarity {copies.similarity}")

        stored = work.read("id")
        if stored is None:
            if inputs.id_test is not None:
                held_out, rest, labels = loaded[inputs.id_test.spec].images, train.images, train.labels
            else:
                order = rng.permutation(len(train.images))
                cut = max(1, int(HELD_OUT * len(order)))
                held_out, rest = train.images[order[:cut]], train.images[np.sort(order[cut:])]
                labels = train.labels[np.sort(order[cut:])]
            vectors = _embed_all(inputs.embedder, rest, progress, "embed ID images")
            held_vectors = _embed_all(inputs.embedder, held_out, progress, "embed held-out ID images")
            index = neighbours.IdIndex(vectors, labels)
            stored = {"vectors": vectors, "labels": labels, "held_out": index.nearest(held_vectors)[0]}
            work.write("id", stored)
            del held_out, rest
        else:
            index = neighbours.IdIndex(stored["vectors"], stored["labels"])

        protected = None
        if inputs.protected:
            task = progress.add_task("index protected images", total=None, note="")
            names = [source.spec for source in inputs.protected]
            stacked = np.concatenate([loaded[spec].images for spec in dict.fromkeys(names)])
            del train, loaded  # the index keeps the images itself
            protected = leaks.ProtectedIndex(stacked, copies)
            progress.update(task, completed=len(stacked))
    return Reference(protected, copies, index, neighbours.calibrate(stored["held_out"], config.resolved_id_recall()))


def _draw(array: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return array[rng.permutation(len(array))[:count]]


def _embed_all(embedder: Embedder, array: np.ndarray, progress: Any, description: str) -> np.ndarray:
    task = progress.add_task(description, total=len(array), note="")
    vectors = []
    for start in range(0, len(array), 1024):
        vectors.append(embedder.embed(array[start : start + 1024]).vectors)
        progress.advance(task, len(vectors[-1]))
    return np.concatenate(vectors)
