"""Settings of a build, and the checks that need no input."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate import quality, sampling
from curate.outputs import check_out
from srood.errors import InputError
from srood.images import MAX_BYTES, MAX_PIXELS, MOST_BYTES, MOST_PIXELS, Limits

# From benchmarks/id_filter.py (figures in docs/id-classes.md): a thumbnail tells classes no better than chance, so its
# filter is off; with a classifier of 32-pixel images, beyond 0.7 the rows dropped are hardly richer in ID classes than
# the corpus is; with a network trained on ImageNet they are twice as rich up to 0.9.
DEFAULT_ID_RECALL = {"thumbnail": 0.0, "checkpoint": 0.7, "onnx": 0.9, "timm": 0.9}


@dataclass(frozen=True)
class BuildConfig:
    """Settings of a build; the command's options of the same names."""

    source: tuple[str, ...] = ("tinyimages-alt",)
    size: int = 300_000
    id: str = "cifar10"
    out: Path = Path("manifests/mini.h5")
    image_size: int = 32
    seed: int = 0
    embedder: str = "thumbnail"
    exclude_labels: str = "auto"
    protect: tuple[str, ...] = ()
    exclude_indices: Path | None = None
    exclude_indices_base: int | None = None
    source_license: str | None = None
    quality: str = "default"
    max_upscale: float | None = None
    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES
    sample: str = "uniform"
    clusters: int | None = None
    id_recall: float | None = None
    strict_size: bool = False
    overwrite: bool = False
    dry_run: bool = False
    workers: int | None = None
    calibration_images: int = 1_000
    batch_rows: int = 1024
    shard_rows: int = 10_000

    def resolved_id_recall(self) -> float:
        """The share asked for, or the embedder's default."""
        return DEFAULT_ID_RECALL.get(self.embedder.split(":")[0], 0.0) if self.id_recall is None else self.id_recall

    @property
    def limits(self) -> Limits:
        """What one image may cost to decode."""
        return Limits(self.max_pixels, self.max_bytes)

    def recorded(self) -> dict[str, Any]:
        """The settings that decide the bytes of the set, as the manifest holds them."""
        return {
            "source": [_without_folder(spec) for spec in self.source],
            "size": self.size,
            "id": _without_folder(self.id),
            "image_size": self.image_size,
            "seed": self.seed,
            "embedder": self.embedder.split(":")[0],
            "exclude_labels": Path(self.exclude_labels).name,
            "protect": [_without_folder(spec) for spec in self.protect],
            "exclude_indices": self.exclude_indices and self.exclude_indices.name,
            "quality": quality.recorded(self.quality, self.max_upscale),
            "max_pixels": self.max_pixels,
            "max_bytes": self.max_bytes,
            "sample": self.sample,
            "clusters": self.clusters,
            "id_recall": self.resolved_id_recall(),
            "calibration_images": self.calibration_images,
            "batch_rows": self.batch_rows,
            "shard_rows": self.shard_rows,
        }


def _without_folder(spec: str) -> str:
    """A path's last component, so that the same files give the same set wherever they lie; names as they are."""
    return Path(os.path.abspath(spec)).name if Path(spec).exists() else spec


def check_workers(workers: int | None) -> None:
    """Check a number of threads.

    Raises:
        InputError: there would be none.
    """
    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers}: must be at least 1")


def check_seed(seed: int) -> None:
    """Check a seed.

    Raises:
        InputError: it is negative, which NumPy's generators do not take.
    """
    if seed < 0:
        raise InputError(f"--seed {seed}: must be at least 0")


def check_limits(limits: Limits) -> None:
    """Check what one image may cost.

    Raises:
        InputError: nothing would be decoded, or Pillow would refuse what is allowed.
    """
    if not 1 <= limits.pixels <= MOST_PIXELS:
        raise InputError(f"--max-pixels {limits.pixels}: must lie between 1 and {MOST_PIXELS:,}, Pillow's own limit")
    if not 1 <= limits.bytes <= MOST_BYTES:
        raise InputError(f"--max-bytes {limits.bytes}: must lie between 1 and {MOST_BYTES:,}")


def check(config: BuildConfig) -> None:
    """Make the folder of the output where it is missing.

    Raises:
        InputError: an option has a value that cannot be used, or the output cannot be written.
    """
    for name, value, least in (("size", config.size, 1), ("image-size", config.image_size, 8)):
        if value < least:
            raise InputError(f"--{name} {value}: must be at least {least}")
    check_seed(config.seed)
    if not 0 <= config.resolved_id_recall() <= 1:
        raise InputError(f"--id-recall {config.id_recall}: must lie between 0 (off) and 1")
    sampling.parse(config.sample)
    if config.clusters is not None and config.clusters < 1:
        raise InputError(f"--clusters {config.clusters}: must be at least 1")
    check_workers(config.workers)
    check_limits(config.limits)
    if config.quality not in quality.LEVELS:
        raise InputError(f"--quality {config.quality}: is unknown; choose one of {', '.join(quality.LEVELS)}")
    if config.max_upscale is not None and not 1 <= config.max_upscale < math.inf:
        raise InputError(f"--max-upscale {config.max_upscale}: must be a number of at least 1, or left out")
    if config.exclude_indices_base not in (None, 0, 1):
        raise InputError(f"--exclude-indices-base {config.exclude_indices_base}: must be 0 or 1")
    check_out(config.out)
