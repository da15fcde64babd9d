"""How fast an outlier set is exported in each format, and what compression of PNG costs (docs/export.md).

    python benchmarks/export.py

A set of 20,000 images is made of a named set, or of noise where that is not to be had, and exported several times, the
formats in turn. Beside them `datasets.Dataset.to_parquet` writes the same rows. The ratio is of its time to ours in the
same round. Then PNG alone: images a second and bytes, by level of zlib.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import numpy as np
from PIL import Image

from curate.exporting import png
from curate.exporting.export import FORMATS, export
from curate.exporting.parquet import features
from srood.datasets import load_images
from srood.errors import InputError
from srood.hashes import pixel_sha256
from srood.outliers import OutlierSet, write_set

SHARD_ROWS = 10_000
PEER = "datasets"
LEVELS = (0, 1, 2, 3, 4, 5, 6, 9)
FEW = 1000  # images by which levels of PNG are compared


def read_images(spec: str, rows: int, size: int) -> tuple[np.ndarray, str]:
    """Images (rows, size, size, 3) uint8, at most as many as the set has, and what they are."""
    try:
        return load_images(spec, size).images[:rows], spec
    except InputError:
        return np.random.default_rng(0).integers(0, 256, (rows, size, size, 3), np.uint8), "noise"


def make_set(folder: Path, images: np.ndarray, shard_rows: int = SHARD_ROWS) -> OutlierSet:
    """The images as an outlier set with made-up columns."""
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), len(images)
    columns = {
        "image": images,
        "key": np.array([f"images:train#{row}".encode() for row in range(rows)]),
        "sha256": np.array([pixel_sha256(image).encode() for image in images]),
        "label": rng.integers(0, 200, rows),
        "id_similarity": rng.random(rows, np.float32),
        "id_class": rng.integers(0, 10, rows),
        "cluster": rng.integers(0, 140, rows),
        "id_ness": rng.normal(size=rows).astype(np.float32),
    }
    starts = range(0, rows, shard_rows)
    shards = ({name: values[start : start + shard_rows] for name, values in columns.items()} for start in starts)
    manifest = {"config": {"image_size": images.shape[1]}, "label_names": [f"n{i:08d}" for i in range(200)]}
    return OutlierSet.open(write_set(folder / "mini.h5", shards, len(starts), manifest, scratch))


def write_with_datasets(opened: OutlierSet, path: Path) -> None:
    """The same rows and columns in one Parquet file, as `datasets` writes it."""
    kinds = datasets.Features.from_dict(features(opened))
    rows = {name: opened.read(name) for name in kinds}
    text = {name: [value.decode() for value in rows[name].tolist()] for name in ("key", "sha256")}
    pictures = [Image.fromarray(image) for image in rows["image"]]
    datasets.Dataset.from_dict({**rows, **text, "image": pictures}, kinds).to_parquet(path)


def time_formats(opened: OutlierSet, folder: Path, runs: int, workers: int | None) -> dict[str, dict[str, Any]]:
    """Seconds of each run and bytes, of each format and the peer."""
    found: dict[str, dict[str, Any]] = {name: {"seconds": []} for name in (*FORMATS, PEER)}
    for number in range(runs):
        for name, entry in found.items():
            out = folder / f"{name}-{number}"
            started = time.perf_counter()
            if name == PEER:
                out.mkdir()
                write_with_datasets(opened, out / "train.parquet")
            else:
                export(str(opened.path), name, out, workers=workers)
            entry["seconds"].append(time.perf_counter() - started)
            entry["bytes"] = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    for entry in found.values():
        entry["rows_per_second"] = opened.num_rows / median(entry["seconds"])
        entry["ratios"] = [a / b for a, b in zip(found[PEER]["seconds"], entry["seconds"], strict=True)]
    return found


def time_levels(images: np.ndarray, runs: int, workers: int | None) -> list[dict[str, Any]]:
    """Images a second and share of the raw bytes, by level; the level that is used last."""
    found: dict[int, dict[str, Any]] = {level: {"level": level, "seconds": []} for level in LEVELS}
    chosen = png.LEVEL
    with ThreadPoolExecutor(workers) as pool:
        for _ in range(runs):
            for level, entry in found.items():
                png.LEVEL = level
                started = time.perf_counter()
                entry["share"] = sum(map(len, png.encode_all(images, pool))) / images.nbytes
                entry["seconds"].append(time.perf_counter() - started)
    png.LEVEL = chosen
    return list(found.values())


def main() -> None:
    """Parse, measure, print tables and (``--json``) write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", default="cifar10:train", help="image set of which the outlier set is made")
    parser.add_argument("--large", default="textures:test", help="image set for larger pictures")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    datasets.disable_progress_bars()
    images, name = read_images(options.spec, options.rows, 32)
    large, large_name = read_images(options.large, FEW, 112)
    with tempfile.TemporaryDirectory() as folder:
        opened = make_set(Path(folder) / "set", images)
        formats = time_formats(opened, Path(folder), options.runs, options.workers)
    print(f"{len(images):,} rows of {name} at 32x32, {options.workers} threads, {options.runs} runs")
    print("format        seconds: median (least to most)   rows/s      MB   times as fast as datasets: median (range)")
    for key, entry in formats.items():
        seconds, ratios = sorted(entry["seconds"]), sorted(entry["ratios"])
        print(
            f"{key:12} {median(seconds):8.2f} ({seconds[0]:.2f} to {seconds[-1]:.2f}) {entry['rows_per_second']:15,.0f}"
            f" {entry['bytes'] / 1e6:8.1f} {median(ratios):8.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
    levels = {}
    for few, what in ((images[:FEW], f"{name} at 32x32"), (large, f"{large_name} at 112x112")):
        levels[what] = time_levels(few, options.runs, options.workers)
        print(f"PNG of {len(few):,} images of {what}: level, images/s (median), share of the raw bytes")
        for row in levels[what]:
            used = "  used" if row["level"] == png.LEVEL else ""
            print(f"{row['level']} {len(few) / median(row['seconds']):10,.0f} {row['share']:8.4f}{used}")
    if options.json:
        options.json.write_text(json.dumps({"rows": len(images), "formats": formats, "png": levels}, indent=1) + "\n")


if __name__ == "__main__":
    main()
