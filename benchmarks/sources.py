"""What the quality filter would drop of real sets, and how fast each format is read (docs/sources.md).

python benchmarks/sources.py [--spec SPEC ...] [--rows 10000]
"""

from __future__ import annotations

import argparse
import io
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np

from curate import quality
from srood import datasets

SPECS = ("tiny-imagenet:corpus", "cifar10:test", "cifar100:test", "textures:test")
BELOW = (1, 4, 6, 8, 10, 12)


def print_contrasts(specs: list[str]) -> None:
    """Rows of each set below each contrast, at 32x32."""
    print("rows of a contrast below |", *BELOW, "| least")
    for spec in specs:
        contrast = quality.contrast(datasets.load_images(spec, 32).images)
        counts = [int((contrast < value).sum()) for value in BELOW]
        print(f"{spec} ({len(contrast):,}) |", *counts, f"| {contrast.min():.1f}")


def write_formats(folder: Path, encoded: list[bytes], pixels: np.ndarray) -> list[Path]:
    """The same rows as each kind of file."""
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        for number, data in enumerate(encoded):
            archive.writestr(f"{number % 200}/{number}.jpg", data)
    with tarfile.open(folder / "a.tar", "w") as shard:
        for number, data in enumerate(encoded):
            for extension, content in (("jpg", data), ("cls", str(number % 200).encode())):
                member = tarfile.TarInfo(f"{number:06d}.{extension}")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
    np.save(folder / "a.npy", pixels)
    (folder / "tiny_images.bin").write_bytes(pixels.transpose(0, 3, 2, 1).tobytes())
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("image", data=pixels, chunks=(64, *pixels.shape[1:]))
    return sorted(folder.iterdir())


def print_speeds(spec: str, rows: int) -> None:
    """Rows a second, read but not decoded."""
    source = datasets.resolve(spec)
    started = time.perf_counter()
    encoded = [row.data for row, _ in zip(source.rows(), range(rows), strict=False) if isinstance(row.data, bytes)]
    print(f"Parquet: {len(encoded) / (time.perf_counter() - started):,.0f} rows/s")
    pixels = datasets.load_images(spec, 32).images[:rows]
    with tempfile.TemporaryDirectory() as folder:
        for path in write_formats(Path(folder), encoded, pixels):
            started = time.perf_counter()
            opened = datasets.resolve(str(path))
            headers = time.perf_counter() - started
            count = sum(1 for _ in opened.rows())
            seconds = time.perf_counter() - started - headers
            print(f"{path.name}: opened in {headers:.2f} s, {count / seconds:,.0f} rows/s")
    started = time.perf_counter()
    for first in range(0, len(pixels), 1024):
        quality.contrast(pixels[first : first + 1024])
    print(f"contrast: {len(pixels) / (time.perf_counter() - started):,.0f} images/s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", action="append", help="image set; may be repeated")
    parser.add_argument("--rows", type=int, default=10_000, help="rows to read in each format")
    options = parser.parse_args()
    specs = options.spec or list(SPECS)
    print_contrasts(specs)
    print_speeds(specs[0], options.rows)
