"""An ID set and a corpus with planted repeats, leaks, blank and broken images, to compare builds by their bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pictures import encode, pictures, write_parquet

from curate.config import BuildConfig
from srood.models import build_model
from srood.models.weights import WeightsInfo, save_weights

FIRST, SECOND = 200, 130  # rows of the corpus's two sets: 7 and 5 batches of 32


def make_world(root: Path) -> Path:
    """An ID set, and a corpus of two sets with repeats between rows that are many batches apart, in `root`."""
    ident = pictures(160, seed=1)
    write_parquet(root / "id" / "train.parquet", ident[:120], [i % 4 for i in range(120)], ["a", "b", "c", "d"])
    write_parquet(root / "id" / "test.parquet", ident[120:], [i % 4 for i in range(40)], ["a", "b", "c", "d"])
    corpus: list = list(pictures(FIRST + SECOND, seed=2))
    labels = [row % 4 for row in range(len(corpus))]
    for row in range(6):
        corpus[90 + row] = corpus[row]  # exact duplicates
        corpus[300 + row] = corpus[row]
        corpus[150 + row] = encode(corpus[20 + row], "JPEG", quality=85)  # near-duplicates
        corpus[310 + row] = ident[row]  # leaks
        corpus[40 + row] = ident[row]  # the same leaks earlier: those above are exact duplicates and no leaks
        corpus[320 + row] = encode(ident[row][:, ::-1], "JPEG", quality=80)
    corpus[7] = corpus[8]  # within one batch
    corpus[120] = corpus[250] = np.full((32, 32, 3), 9, np.uint8)  # blank
    corpus[60], corpus[260] = b"", b"<html></html>"
    write_parquet(root / "first.parquet", corpus[:FIRST], labels[:FIRST], ("house", "tree", "tabby cat", "car"))
    write_parquet(root / "second.parquet", corpus[FIRST:], [0] * SECOND, ("lake of a very long name",))
    (root / "exclude.txt").write_text("tabby cat\n")
    torch.manual_seed(0)
    info = WeightsInfo("resnet20", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), image_size=32)
    save_weights(root / "m.safetensors", build_model("resnet20", 4).state_dict(), info)
    return root


def config(world: Path, out: Path, **changes) -> BuildConfig:
    values = {"source": (str(world / "first.parquet"), str(world / "second.parquet")), "id": str(world / "id")}
    values |= {"size": 150, "out": out, "exclude_labels": str(world / "exclude.txt"), "id_recall": 0.2}
    small = {"batch_rows": 32, "shard_rows": 64, "workers": 2, "calibration_images": 20}
    return BuildConfig(**{**values, **small, **changes})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
