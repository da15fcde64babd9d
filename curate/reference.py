"""What the corpus is compared with: ID and protected sets, indexed, and the thresholds calibrated on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from curate import contamination, idness, leaks, neighbours
from curate.config import BuildConfig
from curate.embedders import Embedder, Embeddings
from curate.evidence import Batch
from curate.inputs import Inputs
from curate.workspace import Workspace
from srood import datasets
from srood.errors import InputError
from srood.progress import progress_bar

_Key = tuple[str, str]  # spec and fingerprint

HELD_OUT = 0.1  # of the ID images, where there is no ID test set to calibrate on


@dataclass
class Reference:
    """Indexed ID and protected images, and the thresholds calibrated on them."""

    protected: leaks.ProtectedIndex | None  # None too where nothing will be searched
    copies: leaks.CopyThreshold
    id_index: neighbours.IdIndex
    id_classes: idness.IdClasses
    id_recall: float
    held_out_rows: idness.Measured  # held-out ID images
    protected_keys: tuple[str, ...] = ()
    protected_images: np.ndarray | None = None
    id_scale: idness.IdScale | None = None  # both are known once the corpus has been seen
    held_out_id_ness: np.ndarray | None = None
    corpus_id_ness: np.ndarray | None = None  # before any row was dropped for it

    @property
    def held_out(self) -> np.ndarray:
        """Similarities of held-out ID images to the nearest ID training image, float32 (H,)."""
        return self.held_out_rows.similarity

    @property
    def id_threshold(self) -> idness.IdThreshold:
        """The threshold on ID-ness that catches the share of held-out ID images that was asked for."""
        assert self.held_out_id_ness is not None, "calibrate_id comes first"
        return idness.calibrate(self.held_out_id_ness, self.id_recall)

    def calibrate_id(self, corpus: idness.Measured) -> np.ndarray:
        """Put ID-ness on its scale with the rows of the corpus; return theirs, float32 (N,)."""
        found = idness.IdScale.calibrate_and_score(self.id_classes, corpus, self.held_out_rows)
        self.id_scale, self.held_out_id_ness, self.corpus_id_ness = found
        return found[2]

    def protected_batch(self) -> Batch | None:
        """The protected images with their keys, to be shown; None where nothing is protected."""
        return None if self.protected_images is None else Batch(self.protected_keys, self.protected_images)

    def release_protected(self) -> None:
        """Free the index of protected images, the largest thing in memory, once the corpus has been searched."""
        self.protected = self.protected_images = None

    def estimate_contamination(self, kept: np.ndarray, seed: int) -> dict[str, contamination.Share] | None:
        """The share of rows that show an ID class, from the ID-ness of the rows that were `kept` and of all."""
        assert self.corpus_id_ness is not None and self.held_out_id_ness is not None, "calibrate_id comes first"
        return contamination.estimate(self.corpus_id_ness, self.held_out_id_ness, kept, seed)


def prepare_reference(
    config: BuildConfig, inputs: Inputs, work: Workspace, console: Console, search: bool = True
) -> Reference:
    """Decode and index the ID and protected sets, and calibrate both thresholds.

    Without `search` the protected images are there to be shown, but not indexed.

    Raises:
        InputError: a set cannot be decoded, or the ID set is of one image and there is none to calibrate on.
    """
    sources = {_key(source): source for source in (inputs.id_train, inputs.id_test, *inputs.protected) if source}
    with progress_bar("images", console) as progress:
        loaded: dict[_Key, datasets.Images] = {}
        task = progress.add_task("decode ID and protected sets", total=None, note="")
        for key, source in sources.items():
            progress.update(task, note=source.spec)
            loaded[key] = datasets.load_source(source, config.image_size, config.workers, True, config.limits)
            progress.advance(task, len(loaded[key].images))
        progress.update(task, note="")
        train = loaded[_key(inputs.id_train)]
        if inputs.id_test is None and len(train.images) < 2:
            work.remove()
            raise InputError(
                f"--id {inputs.id_train.spec}: holds one image, and one must be held out; name a set of more images, "
                "or a folder with train/ and test/"
            )

        rng = np.random.default_rng(np.random.SeedSequence([config.seed, 0xCA1]))
        task = progress.add_task("calibrate the copy threshold", total=None, note="")
        sample = leaks.calibration_sample(train.images, config.calibration_images, config.seed)
        copies = leaks.calibrate_copies(sample, config.seed)
        progress.update(task, note=f"similarity {copies.similarity}")

        stored = work.read("id")
        if stored is None:
            if inputs.id_test is not None:
                held_out, rest, labels = loaded[_key(inputs.id_test)].images, train.images, train.labels
            else:
                order = rng.permutation(len(train.images))
                cut = max(1, int(HELD_OUT * len(order)))
                held_out, rest = train.images[order[:cut]], train.images[np.sort(order[cut:])]
                labels = train.labels[np.sort(order[cut:])]
            vectors = _embed_all(inputs.embedder, rest, progress, "embed ID images").vectors
            held = _embed_all(inputs.embedder, held_out, progress, "embed held-out ID images")
            index = neighbours.IdIndex(vectors, labels)
            stored = {"vectors": vectors, "labels": labels, "held_similarity": index.nearest(held.vectors)[0]}
            stored |= {"held_vectors": held.vectors.astype(np.float16)}  # as the corpus's are stored
            stored |= {} if held.energy is None else {"held_energy": held.energy}
            work.write("id", stored)
            del held_out, rest
        else:
            index = neighbours.IdIndex(stored["vectors"], stored["labels"])

        protected = stacked = None
        keys: list[str] = []
        if inputs.protected:
            task = progress.add_task("index protected images", total=None, note="")
            protected_sets = [loaded[key] for key in dict.fromkeys(_key(source) for source in inputs.protected)]
            stacked = np.concatenate([decoded.images for decoded in protected_sets])
            keys = [key for decoded in protected_sets for key in decoded.keys]
            del train, loaded, protected_sets  # the index keeps the images itself
            protected = leaks.ProtectedIndex(stacked, copies) if search else None
            progress.update(task, completed=len(stacked))
    held_out_rows = idness.Measured(stored["held_vectors"], stored["held_similarity"], stored.get("held_energy"))
    classes = idness.IdClasses.fit(stored["vectors"], stored["labels"])
    recall = config.resolved_id_recall()
    return Reference(protected, copies, index, classes, recall, held_out_rows, tuple(keys), stacked)


def _key(source: datasets.ImageSource) -> _Key:
    """Names a set that is decoded once; a spec alone names what is at hand, which need not be what was found."""
    return source.spec, source.fingerprint()


def _embed_all(embedder: Embedder, array: np.ndarray, progress: Any, description: str) -> Embeddings:
    task = progress.add_task(description, total=len(array), note="")
    parts = []
    for start in range(0, len(array), 1024):
        parts.append(embedder.embed(array[start : start + 1024]))
        progress.advance(task, len(parts[-1].vectors))
    energy = None if parts[0].energy is None else np.concatenate([p.energy for p in parts if p.energy is not None])
    return Embeddings(np.concatenate([part.vectors for part in parts]), energy)
