"""Time and memory of `curate build` by the size of the corpus (docs/scaling.md).

    python benchmarks/scale.py --rows 30000 100000
    python benchmarks/scale.py --rows 30000 300000 3000000 --folder /scratch

The corpus is made while it is read: each picture is a blend of crops of two real images, mirrored or not, and
`--copies` rows show it, moved by up to a pixel and with noise. Each size is built in a process of its own. Files that a
build needs lie in `--folder`, about 9 kB a row until it is done.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from curate import build as building
from curate import stream
from curate.config import BuildConfig
from curate.embedders import open_embedder
from curate.inputs import put_together
from curate.sources import one_after_another
from srood import datasets, images
from srood.containers import Row

SIDE, LARGE = 32, 44  # of pictures, and of the real images that they are cut from
REAL = 8192  # real images at the most
BLOCK = 1024  # pictures made together
STAGES = ("reference", "stream", "ID stage", "near-duplicates", "sample", "write")


@dataclass(frozen=True)
class Pictures:
    """A corpus that is made when it is read: `count` rows, each of which `copies` rows show; no labels."""

    real: np.ndarray
    count: int
    copies: int
    seed: int = 0
    class_names: tuple[str, ...] = ()

    def num_rows(self) -> int:
        """Rows."""
        return self.count

    def fingerprint(self) -> str:
        """What decides the pictures."""
        return datasets.content_fingerprint(np.array([len(self.real), self.count, self.copies, self.seed]))

    def rows(self, start: int = 0, max_bytes: int = images.MAX_BYTES) -> Iterator[Row]:
        """Rows from number `start` on; none has that many bytes. Copies of a picture lie far apart."""
        for block in range(start // BLOCK, -(-self.count // BLOCK)):
            made = self.block(block)
            for number in range(max(start, block * BLOCK), min(self.count, (block + 1) * BLOCK)):
                yield Row(f"#{number}", made[number - block * BLOCK], -1)

    def block(self, number: int) -> np.ndarray:
        """Rows number * BLOCK to (number + 1) * BLOCK - 1, uint8 (BLOCK, 32, 32, 3)."""
        different = max(1, -(-self.count // self.copies) // BLOCK)  # blocks of pictures that differ
        rng = np.random.default_rng([self.seed, number % different])
        which = rng.integers(0, len(self.real), (2, BLOCK))
        place = rng.integers(1, LARGE - SIDE, (2, 2, BLOCK))
        mirrored = rng.random((2, BLOCK)) < 0.5
        share = rng.uniform(0.4, 0.6, (BLOCK, 1, 1, 1)).astype(np.float32)
        of_copy = np.random.default_rng([self.seed, number, 1])
        down, across = of_copy.integers(-1, 2, (2, BLOCK))
        place[:, 0] += down  # both parts of the blend are moved alike
        place[:, 1] += np.where(mirrored, -across, across)
        windows = np.lib.stride_tricks.sliding_window_view(self.real, (SIDE, SIDE), axis=(1, 2))
        both = []
        for k in range(2):
            cut = windows[which[k], place[k, 0], place[k, 1]].transpose(0, 2, 3, 1)
            both.append(np.where(mirrored[k][:, None, None, None], cut[:, :, ::-1], cut).astype(np.float32))
        noise = of_copy.integers(-4, 5, both[0].shape, np.int8)
        mean = share * both[0] + (1 - share) * both[1]
        stretched = 128 + 1.4 * (mean - 128) + noise  # a blend is paler than its parts
        return np.clip(np.rint(stretched), 0, 255).astype(np.uint8)


def real_images(spec: str) -> np.ndarray:
    """The first images of a set, uint8 (n, 44, 44, 3)."""
    rows = islice(datasets.resolve(spec).rows(), REAL)
    found, reasons = images.decode_batch([row.data for row in rows], LARGE)
    return found[[reason is None for reason in reasons]]


class Watch:
    """Seconds and memory of named stages; memory is looked at twenty times a second."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.processor = dict.fromkeys(STAGES, 0.0)
        self.anonymous = dict.fromkeys(STAGES, 0)
        self.stage = STAGES[0]
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def timed(self, stage: str, work: Callable) -> Callable:
        """The same function, whose time is that of a stage; one inside another counts for itself."""

        def run(*args: Any, **more: Any) -> Any:
            before, self.stage = self.stage, stage
            started = time.perf_counter(), time.process_time()
            try:
                return work(*args, **more)
            finally:
                spent = time.perf_counter() - started[0], time.process_time() - started[1]
                for of, seconds in zip((self.seconds, self.processor), spent, strict=True):
                    of[stage] += seconds
                    if before not in (stage, STAGES[0]):
                        of[before] -= seconds
                self.stage = before

        return run

    def _look(self) -> None:
        while not self.done.wait(0.05):
            self.anonymous[self.stage] = max(self.anonymous[self.stage], anonymous_bytes())


def anonymous_bytes() -> int:
    """Memory of this process that no file backs (RssAnon), in bytes; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def build_one(settings: dict[str, Any]) -> dict[str, Any]:
    """One build in this process: seconds, memory, what came out."""
    watch, folder = Watch(), Path(settings["folder"])
    real = real_images(settings["real"])
    corpus = Pictures(real, settings["rows"], settings["copies"])
    apart = Pictures(real, settings["id_images"] + settings["protected"], 1, seed=1)
    made = np.concatenate([apart.block(k) for k in range(-(-apart.count // BLOCK))])[: apart.count]
    np.save(folder / "id.npy", made[: settings["id_images"]])
    np.save(folder / "protected.npy", made[settings["id_images"] :])
    config = BuildConfig(
        source=("pictures",),
        size=settings["size"],
        id=str(folder / "id.npy"),
        protect=("none", str(folder / "protected.npy")),
        out=folder / "mini.h5",
        embedder=settings["embedder"],
        workers=settings["workers"],
        calibration_images=settings["calibration_images"],
    )
    source = datasets.ImageSource("pictures", corpus, "made while it is read")  # type: ignore[arg-type]
    found = one_after_another(config.source, [source], [], [], None)
    protected = [datasets.resolve(config.protect[1])]
    embedder = open_embedder(config.embedder)
    inputs = put_together(config, found, datasets.resolve(config.id), None, protected, embedder)

    building.prepare_reference = watch.timed("reference", building.prepare_reference)  # type: ignore[assignment]
    building.stream_corpus = watch.timed("stream", building.stream_corpus)  # type: ignore[assignment]
    stream.drop_id_rows = watch.timed("ID stage", stream.drop_id_rows)  # type: ignore[assignment]
    building.dedup.find_groups = watch.timed("near-duplicates", building.dedup.find_groups)  # type: ignore[assignment]
    building.sampling.draw = watch.timed("sample", building.sampling.draw)  # type: ignore[assignment]
    building.outliers.write_set = watch.timed("write", building.outliers.write_set)  # type: ignore[assignment]
    started = time.perf_counter()
    result = building.build(config, Console(quiet=True), inputs)
    seconds = time.perf_counter() - started
    watch.done.set()
    watch.thread.join()
    manifest = result.manifest
    return {
        "rows": settings["rows"],
        "seconds": seconds,
        "stages": watch.seconds,
        "processor_seconds": watch.processor,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "anonymous_bytes": watch.anonymous,
        "near_duplicates": manifest["near_duplicates"]["index"],
        "left": {entry["stage"]: entry["left"] for entry in manifest["stages"]},
        "written": manifest["rows"],
    }


def main() -> None:
    """Build each size in a process of its own and print the ratios first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[30_000, 100_000])
    parser.add_argument("--copies", type=int, default=2, help="rows that show the same picture")
    parser.add_argument("--real", default="tiny-imagenet:corpus", help="what pictures are cut from")
    parser.add_argument("--embedder", default="thumbnail")
    parser.add_argument("--size", type=int, default=10_000, help="rows to write")
    parser.add_argument("--id-images", type=int, default=2000)
    parser.add_argument("--protected", type=int, default=32, help="protected images")
    parser.add_argument("--calibration-images", type=int, default=1000)
    parser.add_argument("--workers", type=int, help="threads; by default one per processor")
    parser.add_argument("--folder", type=Path, help="where a build may put its files; by default that of the system")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(build_one(json.loads(options.one))))
        return
    names = ("copies", "real", "embedder", "size", "id_images", "protected", "calibration_images", "workers")
    settings = {name: getattr(options, name) for name in names}
    builds = []
    for rows in sorted(options.rows):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            given = json.dumps({**settings, "rows": rows, "folder": folder})
            command = [sys.executable, __file__, "--one", given]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ)
            builds.append(json.loads(done.stdout.splitlines()[-1]))
    for build in builds:  # what is done once, whatever the corpus, is not counted
        build["microseconds_per_row"] = 1e6 * (build["seconds"] - build["stages"]["reference"]) / build["rows"]
    first, last = builds[0], builds[-1]
    between = f"{last['rows']:,} rows / {first['rows']:,} rows"
    ratios = {
        "time per image": last["microseconds_per_row"] / first["microseconds_per_row"],
        "peak memory": last["peak_bytes"] / first["peak_bytes"],
    }
    for name, ratio in ratios.items():
        print(f"{ratio:8.2f}  {name}, {between}")
    print(f"\n{'rows':>12} {'s':>8} {'us/row':>8} {'rows/s':>8} {'peak GB':>8} {'anon GB':>8}  index")
    for build in builds:
        per_row, found = build["microseconds_per_row"], build["near_duplicates"]
        index = found["kind"] + (f", recall {found['recall']}" if "recall" in found else "")
        memory = f"{build['peak_bytes'] / 1e9:8.2f} {max(build['anonymous_bytes'].values()) / 1e9:8.2f}"
        print(f"{build['rows']:12,} {build['seconds']:8.0f} {per_row:8.0f} {1e6 / per_row:8,.0f} {memory}  {index}")
    print("\nmicroseconds a row, those of all processors together, and anonymous memory in GB")
    print(f"{'':>16}" + "".join(f"{build['rows']:>28,}" for build in builds))
    for stage in STAGES:
        print(f"{stage:>16}", end="")
        for build in builds:
            spent, of_all = (build[of][stage] * 1e6 / build["rows"] for of in ("stages", "processor_seconds"))
            print(f"{spent:>12,.1f} {of_all:>8,.1f} {build['anonymous_bytes'][stage] / 1e9:>6.2f}", end="")
        print()
    print()
    for build in builds:
        print(
            f"{build['rows']:12,} rows: " + ", ".join(f"{left:,} after {name}" for name, left in build["left"].items())
        )
    if options.json:
        options.json.write_text(json.dumps({"ratios": ratios, "builds": builds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
