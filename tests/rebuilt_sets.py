"""What the tests of `curate rebuild` share: sets, all that they were made from, and manifests that were altered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from pictures import pictures, write_parquet

from curate.build import build
from curate.config import BuildConfig
from curate.rebuilding.rebuild import rebuild
from srood.errors import InputError
from srood.models import build_model
from srood.models.weights import WeightsInfo, save_weights

SMALL: dict[str, Any] = {"batch_rows": 64, "shard_rows": 30, "calibration_images": 30, "workers": 1}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def write_document(path: Path, document: dict[str, Any]) -> Path:
    """A manifest with this document, and nothing beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["manifest"] = np.bytes_(json.dumps(document))
    return path


def refusal(spec: object, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        rebuild(str(spec), **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def weights(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    info = WeightsInfo("resnet20", None, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), image_size=16)
    save_weights(path, build_model("resnet20", 2).state_dict(), info)
    return path


def make_world(root: Path) -> Path:
    """An ID set, a corpus, a set to protect, a list of rows and a list of labels to leave out, and a classifier."""
    ident = pictures(140, seed=1)
    write_parquet(root / "id/train.parquet", ident[:100], [i % 2 for i in range(100)], ["a", "b"])
    write_parquet(root / "id/test.parquet", ident[100:], [i % 2 for i in range(40)], ["a", "b"])
    write_parquet(root / "ood.parquet", pictures(20, seed=3), [0] * 20, ["x"])
    corpus = pictures(200, seed=2)
    corpus[100:105] = ident[:5]
    write_parquet(root / "corpus.parquet", corpus, [i % 4 for i in range(200)], ["house", "tree", "tabby cat", "car"])
    (root / "exclude.txt").write_text("tabby cat\n")
    (root / "rows.txt").write_text("1\n5\n9\n")
    weights(root / "classifier.safetensors", seed=0)
    return root


def make_built(world: Path, out: Path) -> Path:
    """A set with every setting that is not the default."""
    config = BuildConfig(
        source=(str(world / "corpus.parquet"),),
        id=str(world / "id"),
        size=70,
        out=out,
        image_size=16,
        seed=3,
        embedder=f"checkpoint:{world / 'classifier.safetensors'}",
        exclude_labels=str(world / "exclude.txt"),
        protect=(str(world / "ood.parquet"),),
        exclude_indices=world / "rows.txt",
        exclude_indices_base=1,
        source_license="CC0-1.0",
        quality="none",
        max_upscale=4.0,
        max_pixels=10_000,
        max_bytes=1_000_000,
        sample="clusters",
        clusters=5,
        id_recall=0.3,
        **SMALL,
    )
    return build(config).out


def make_plain(world: Path, out: Path) -> Path:
    """A set by thumbnails, with little to find again."""
    return build(BuildConfig((str(world / "corpus.parquet"),), 40, str(world / "id"), out, 16, **SMALL)).out
