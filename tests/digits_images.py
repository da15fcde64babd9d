"""A small ID set and a small outlier set for the training tests, made of scikit-learn's digits and of noise."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from sklearn.datasets import load_digits

from srood.hashes import pixel_sha256
from srood.models import build_model
from srood.models.weights import Triple, WeightsInfo, save_weights
from srood.outliers import write_set


def digits() -> tuple[np.ndarray, np.ndarray]:
    """(1797, 32, 32, 3) uint8 and (1797,) int64."""
    data = load_digits()
    large = np.kron(data.images, np.ones((1, 4, 4))) * (255 / 16)
    return np.repeat(large[..., None], 3, axis=3).astype(np.uint8), data.target.astype(np.int64)


def write_parquet(path: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    """Images as the Hub stores them, losslessly."""
    encoded = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "png")
        encoded.append({"bytes": stream.getvalue(), "path": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": encoded, "label": labels}), path)
    return path


def write_digits(folder: Path, train: int = 200, test: int = 100) -> Path:
    """An ID set: train.parquet with the first digits and test.parquet with the last."""
    images, labels = digits()
    write_parquet(folder / "train.parquet", images[:train], labels[:train])
    write_parquet(folder / "test.parquet", images[-test:], labels[-test:])
    return folder


def write_noise(folder: Path, rows: int = 50, size: int = 32, seed: int = 0) -> Path:
    """An outlier set of smooth noise, in one shard."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (rows, size // 4, size // 4, 3), dtype=np.uint8)
    images = np.repeat(np.repeat(coarse, 4, axis=1), 4, axis=2)
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    return write_set(folder / "mini.h5", iter([noise_columns(images)]), 1, {"config": {"image_size": size}}, scratch)


def noise_columns(images: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of a shard of such images, (N, H, W, 3) uint8."""
    rows = len(images)
    return {
        "image": images,
        "key": np.array([f"noise#{i}".encode() for i in range(rows)]),
        "sha256": np.array([pixel_sha256(image).encode() for image in images]),
        "label": np.full(rows, -1),
        "id_similarity": np.zeros(rows, np.float32),
        "id_class": np.zeros(rows, np.int64),
    }


def write_training_files(folder: Path, train: int, mean: Triple, std: Triple, size: int = 16) -> dict[str, object]:
    """What a tuning run on images of `size` pixels is given: ID set, outliers, and a ResNet-20 that is not trained."""
    torch.manual_seed(0)
    info = WeightsInfo("resnet20", None, mean, std, image_size=size)
    save_weights(folder / "start.safetensors", build_model("resnet20", 10).state_dict(), info)
    return {
        "id": str(write_digits(folder / "id", train)),
        "checkpoint": folder / "start.safetensors",
        "outliers": write_noise(folder / "outliers", size=size),
    }
