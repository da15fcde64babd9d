"""A small outlier set with what makes exports hard: shards, keys that are no ASCII, labels that are no file names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pictures import pictures

from srood.hashes import pixel_sha256
from srood.outliers import OutlierSet, write_set

LABELS = [
    "n02123045 tabby, tabby cat",
    "Straße/Weg",
    "train",
    "crash test dummy",
    "空き家",
    "a:b",
    "a*b",
    "con",
    "NA",
]
ID_CLASSES = ["cat", "dog/hound", "naïve"]
SHARDS = (70, 50, 9)


def columns(first: int, count: int, labelled: bool = True) -> dict[str, np.ndarray]:
    """The columns of a shard; every tenth row has no label."""
    rows = np.arange(first, first + count)
    images = pictures(count, seed=first, size=16)
    return {
        "image": images,
        "key": np.array([f"größe/ключ {row}.b.jpg".encode() for row in rows]),
        "sha256": np.array([pixel_sha256(image).encode() for image in images]),
        "label": np.where(rows % 10 == 9, -1, rows % len(LABELS)) if labelled else np.full(count, -1),
        "id_similarity": np.random.default_rng(first).random(count, np.float32),
        "id_class": rows % 3,
        "cluster": rows % 7,
        "id_ness": np.random.default_rng(first + 1).normal(size=count).astype(np.float32),
        "energy": np.random.default_rng(first + 2).normal(size=count).astype(np.float32),
    }


def write_labelled(folder: Path, labelled: bool = True, **changes: object) -> OutlierSet:
    """Three shards of 70, 50 and 9 rows of 16 pixels; `changes` go into the manifest."""
    manifest = {
        "config": {"image_size": 16},
        "label_names": LABELS if labelled else [],
        "id_filter": {"id_class_names": ID_CLASSES},
        "sources": [{"name": "größe", "license": "cc0-1.0"}],
        **changes,
    }
    (folder / "scratch").mkdir(parents=True)
    starts = np.cumsum((0, *SHARDS))
    shards = (columns(int(start), count, labelled) for start, count in zip(starts, SHARDS, strict=False))
    return OutlierSet.open(write_set(folder / "mini.h5", shards, len(SHARDS), manifest, folder / "scratch"))
