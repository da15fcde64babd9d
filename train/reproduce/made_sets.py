"""Image sets that an experiment makes for itself; in experiments and tables they are called ``made:NAME``.

    made:digits, made:corpus, made:exclusions     the ID set and the corpus of `srood demo`
    made:photographs, made:textures, made:print   its OOD sets, crops of photographs in installed packages
    made:blobs                                    smoothed noise, an OOD set of Hendrycks et al. (ICLR 2019)
    made:tiny-imagenet-held-out                   rows of Tiny ImageNet that no outlier set is made from

Each is a function of its name (the last of the ID set and the rows of Tiny ImageNet too), so that it is made once.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import numpy as np

from srood import datasets
from srood.errors import InputError
from srood.files import scratch_beside, write_text
from train.curate_command import run_curate

PREFIX = "made:"
SEED = 0
DEMO = {
    "digits": "demo/id",
    "corpus": "demo/corpus.parquet",
    "exclusions": "demo/exclude.txt",
    "photographs": "demo/ood/photographs.parquet",
    "textures": "demo/ood/textures.parquet",
    "print": "demo/ood/print.parquet",
}
BLOBS, BLOB_SIZE = 2_000, 32
HELD_OUT, HELD_OUT_ROWS, HELD_OUT_OF = "tiny-imagenet-held-out", 2_000, "tiny-imagenet:corpus"


def is_made(name: str) -> bool:
    """Whether a name is that of a made set."""
    return name.startswith(PREFIX)


def shown(name: str) -> str:
    """A set's name in tables."""
    return name.removeprefix(PREFIX)


def place(name: str, folder: Path, id_set: str) -> Path:
    """Where a made set lies under `folder`, made already or not.

    Raises:
        InputError: there is no set of this name.
    """
    what = shown(name)
    if what in DEMO:
        return folder / DEMO[what]
    if what == "blobs":
        return folder / "blobs.npy"
    if what == HELD_OUT:
        return folder / f"{HELD_OUT}-{shown(id_set)}" / "images.parquet"
    raise InputError(f"{name}: no such set can be made; choose of {', '.join([*DEMO, 'blobs', HELD_OUT])}")


def rows_file(path: Path) -> Path:
    """The row numbers of the corpus that a held-out set at `path` was taken from, for ``--exclude-indices``."""
    return path.with_name("rows.txt")


def identity(name: str, id_set: str) -> str:
    """What a made set depends on, as text: two sets of the same identity hold the same images.

    Raises:
        InputError: it cannot be made here, for want of a package or of the set that it is made from.
    """
    what = shown(name)
    if what in DEMO and importlib.util.find_spec("skimage") is None:
        raise InputError(f"{name}: is made of scikit-image's photographs: pip install 'srood[demo]'")
    if what == HELD_OUT:
        return f"{name} {id_set} {HELD_OUT_ROWS} {datasets.resolve(HELD_OUT_OF).fingerprint()}"
    return f"{name} {SEED}"


def make(name: str, folder: Path, id_set: str) -> Path:
    """Make a set where it is not there yet.

    Returns:
        its path.

    Raises:
        InputError: as `identity` and `place`.
    """
    path = place(name, folder, id_set)
    if path.exists():
        return path
    identity(name, id_set)
    top = folder / path.relative_to(folder).parts[0]
    top.parent.mkdir(parents=True, exist_ok=True)
    with scratch_beside(top, "made") as scratch:
        made = scratch / top.name
        if shown(name) in DEMO:
            from train.demo_images import write_demo_images

            made.mkdir()
            write_demo_images(made, SEED)
        elif shown(name) == HELD_OUT:
            made.mkdir()
            _write_held_out(made, id_set)
        else:
            with open(made, "wb") as file:
                np.save(file, blobs(BLOBS))
        os.replace(made, top)
    return path


def blobs(count: int) -> np.ndarray:
    """Random blobs, uint8 (N, 32, 32, 3): noise that is smoothed and cut off below, as in outlier exposure's test."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(SEED)
    images = rng.binomial(1, 0.7, (count, BLOB_SIZE, BLOB_SIZE, 3)).astype(np.float32)
    for number, image in enumerate(images):
        smooth = gaussian_filter(image, sigma=1.5)
        images[number] = np.where(smooth < 0.75, 0, smooth)
    return np.clip(images * 255, 0, 255).astype(np.uint8)


def _write_held_out(folder: Path, id_set: str) -> None:
    """A random part of the corpus: all its row numbers, and the images of those whose label shows no ID class."""
    from train.demo_images import write_images

    source = datasets.resolve(HELD_OUT_OF)
    rows = np.sort(np.random.default_rng(SEED).permutation(source.num_rows())[:HELD_OUT_ROWS])
    left_out = _labels_showing(id_set)
    kept = {label for label, name in enumerate(source.class_names) if name not in left_out}
    wanted, images, labels = set(rows.tolist()), list[bytes](), list[int]()
    for number, row in enumerate(source.rows()):
        if number in wanted and row.label in kept and isinstance(row.data, bytes):
            images.append(row.data)
            labels.append(row.label)
    write_images(folder / "images.parquet", images, np.array(labels), source.class_names)
    write_text(rows_file(folder / "images.parquet"), "\n".join(map(str, rows)) + "\n")


def _labels_showing(id_set: str) -> set[str]:
    """Names of the labels of the corpus that show an ID class."""
    found = json.loads(run_curate("exclusions", id_set, "--corpus", HELD_OUT_OF, "--json"))
    return {entry["label"] for entry in found["corpus"]["excluded"]}
