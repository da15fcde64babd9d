"""Small image sets that the tests make: pictures that look different from one another, and Parquet files of them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def pictures(count: int, seed: int, size: int = 32) -> np.ndarray:
    """(count, size, size, 3) uint8: random coloured shapes on random gradients, textured, no two alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    images = np.empty((count, size, size, 3), np.uint8)
    for row in range(count):
        slope = rng.normal(size=(2, 3))
        picture = 0.5 + 0.3 * (x[..., None] * slope[0] + y[..., None] * slope[1])
        for _ in range(6):
            centre, radius, colour = rng.random(2), rng.uniform(0.08, 0.3, 2), rng.random(3)
            inside = ((x - centre[0]) / radius[0]) ** 2 + ((y - centre[1]) / radius[1]) ** 2 < 1
            picture[inside] = colour
        waves = np.sin(2 * np.pi * (x * rng.uniform(-9, 9) + y * rng.uniform(-9, 9)))
        picture += 0.06 * waves[..., None] + rng.normal(0, 0.02, picture.shape)
        images[row] = (np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return images


def encode(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    """An image file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def write_parquet(
    path: Path,
    images: Sequence[np.ndarray | bytes],
    labels: Sequence[int] | Sequence[str],
    class_names: Sequence[str] | None = None,
    row_group_size: int = 1000,
    image: str = "image",
    label: str = "label",
) -> Path:
    """A Parquet file as the Hub stores image sets; encoded images are taken as they are, arrays become PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": item if isinstance(item, bytes) else encode(item), "path": None} for item in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({image: pa.array(rows, kind), label: pa.array(labels)})
    if class_names is not None:
        features = {image: {"_type": "Image"}, label: {"_type": "ClassLabel", "names": list(class_names)}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path
