"""Where the time of `curate build` goes (docs/benchmarks.md).

    python benchmarks/curation.py --embedder checkpoint:resnet20-cifar10.safetensors

Each stage that every row of the corpus goes through is timed alone on the same rows, several times, the stages in turn;
then the pipeline of them, and then whole builds in processes of their own, with their memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from spread import spread

from curate import quality, sources
from curate.config import BuildConfig
from curate.digests import Digests
from curate.evidence import Evidence
from curate.fingerprints import copy_descriptor
from curate.inputs import Inputs, resolve_inputs
from curate.record import Tally
from curate.reference import Reference, prepare_reference
from curate.stream import compare_batch, describe_batch, settle_batch, stream_corpus
from curate.workspace import Workspace
from srood import images
from srood.hashes import pixel_sha256

ROWS = 4096  # by which stages are timed alone


def stages(config: BuildConfig, inputs: Inputs, reference: Reference, folder: Path, rows: int) -> dict[str, Callable]:
    """What each stage does with the first `rows` of the corpus, by name."""
    raw = list(islice(sources.raw_batches(inputs.corpus, config.batch_rows), -(-rows // config.batch_rows)))
    pool = ThreadPoolExecutor(config.workers or os.cpu_count() or 1)
    encoded = [[row.data for row in batch.rows] for batch in raw]
    sizes = [np.zeros((len(batch), 2), np.int64) for batch in encoded]
    pixels = [images.decode_batch(b, config.image_size, pool, o, True)[0] for b, o in zip(encoded, sizes, strict=True)]
    vectors = [inputs.embedder.embed(batch).vectors for batch in pixels]
    work = Workspace(folder / "mini.h5", "benchmark")
    reasons: list[list[str | None]] = [[None] * len(batch) for batch in pixels]
    measured = [
        compare_batch(describe_batch(config, inputs, *batch), inputs, reference)
        for batch in zip(raw, pixels, reasons, sizes, strict=True)
    ]
    parts = [settle_batch(dict(batch), Digests(), inputs.labels, reference, config.seed) for batch in measured]

    def hash_all() -> None:
        for batch, original in zip(pixels, sizes, strict=True):
            quality.problems(batch, original, config.quality, config.max_upscale)
            for image in batch:
                pixel_sha256(image)
            copy_descriptor(batch)

    def search() -> None:
        for batch in pixels:
            if reference.protected is not None:
                reference.protected.search(batch)

    def write() -> None:
        for number, part in enumerate(parts):
            work.write(f"part-{number:06d}", part)

    return {
        "read": lambda: list(islice(sources.raw_batches(inputs.corpus, config.batch_rows), len(raw))),
        "decode": lambda: [images.decode_batch(batch, config.image_size, pool, reduced=True) for batch in encoded],
        "hash": hash_all,
        "embed": lambda: [inputs.embedder.embed(batch) for batch in pixels],
        "search protected": search,
        "search ID": lambda: [reference.id_index.nearest(batch) for batch in vectors],
        "write": write,
    }


def time_stages(found: dict[str, Callable], rows: int, rounds: int) -> dict[str, list[float]]:
    """Images a second of each stage, one figure a round."""
    rates: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, stage in found.items():
            started = time.perf_counter()
            stage()
            rates[name].append(rows / (time.perf_counter() - started))
    return rates


def time_pipeline(config: BuildConfig, inputs: Inputs, reference: Reference, rounds: int) -> list[float]:
    """Images a second of all stages together, over the whole corpus."""
    rates = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            work = Workspace(Path(folder, "mini.h5"), str(number))
            started = time.perf_counter()
            stream_corpus(config, inputs, reference, work, Tally(), Evidence(config.seed), Console(quiet=True))
            rates.append(inputs.corpus.num_rows() / (time.perf_counter() - started))
    return rates


# a process of its own: so is a build, and its memory is that of nothing else
BUILD = """
import json, resource, sys, time
from pathlib import Path
from rich.console import Console
from curate.build import build
from curate.config import BuildConfig
settings = json.loads(sys.argv[1])
started = time.perf_counter()
several = {name: tuple(settings[name]) for name in ("source", "protect")}
result = build(BuildConfig(**{**settings, **several, "out": Path(settings["out"])}), Console(quiet=True))
seconds = time.perf_counter() - started
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "peak_bytes": memory, "rows": result.manifest["stages"][0]["seen"]}))
"""


def time_builds(settings: dict[str, Any], rounds: int) -> list[dict[str, float]]:
    """Whole builds: seconds, peak memory in bytes (ru_maxrss), rows read."""
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            given = json.dumps({**settings, "out": f"{folder}/mini.h5"})
            done = subprocess.run([sys.executable, "-c", BUILD, given], check=True, stdout=subprocess.PIPE, text=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def main() -> None:
    """Time all of it and print the ratios first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="tiny-imagenet:corpus")
    parser.add_argument("--id", default="cifar10")
    parser.add_argument("--protect", action="append", help="besides the ID set; by default cifar100:test")
    parser.add_argument("--embedder", default="thumbnail")
    parser.add_argument("--size", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=ROWS, help="rows by which stages are timed alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--builds", type=int, default=3, help="whole builds; 0 for none")
    parser.add_argument("--calibration-images", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    settings = {
        "source": [options.source],
        "id": options.id,
        "protect": options.protect or ["cifar100:test"],
        "embedder": options.embedder,
        "size": options.size,
        "calibration_images": options.calibration_images,
    }
    with tempfile.TemporaryDirectory() as folder:
        given: dict[str, Any] = {**settings, "source": (options.source,), "protect": tuple(settings["protect"])}
        config = BuildConfig(**given, out=Path(folder, "mini.h5"))
        inputs = resolve_inputs(config)
        started = time.perf_counter()
        reference = prepare_reference(config, inputs, Workspace(config.out, inputs.recipe), Console(quiet=True))
        prepared = time.perf_counter() - started
        rows = min(options.rows, inputs.corpus.num_rows())
        rates = time_stages(stages(config, inputs, reference, Path(folder), rows), rows, options.rounds)
        pipeline = time_pipeline(config, inputs, reference, max(1, options.rounds // 2))
    slowest = min(rates, key=lambda name: median(rates[name]))
    # what all stages would reach that run one after the other, each on all processors
    in_turn = 1 / sum(1 / median(values) for values in rates.values())
    ratios = {
        "pipeline / slowest stage": median(pipeline) / median(rates[slowest]),
        "pipeline / stages in turn": median(pipeline) / in_turn,
    }
    builds = time_builds(settings, options.builds)
    for name, ratio in ratios.items():
        print(f"{ratio:8.2f}  {name}{f' ({slowest})' if name.endswith('slowest stage') else ''}")
    print(f"\nimages/s, {options.rounds} rounds of {rows:,} rows: median (least to most)")
    for name, values in rates.items():
        print(f"{name:>18}  {spread(values, ',.0f')}")
    print(f"{'pipeline':>18}  {spread(pipeline, ',.0f')} over {inputs.corpus.num_rows():,} rows")
    protected = sum(source.num_rows() for source in inputs.protected)
    print(f"\nindexing of {protected:,} protected images and calibration: {prepared:.1f} s")
    if builds:
        seconds = [build["seconds"] for build in builds]
        print(f"whole build: {spread(seconds, '.1f')} s, {builds[0]['rows'] / median(seconds):,.0f} rows/s end to end")
        print(f"peak memory: {spread([build['peak_bytes'] / 1e9 for build in builds], '.2f')} GB")
    if options.json:
        figures = {"ratios": ratios, "images_per_second": {**rates, "pipeline": pipeline}, "prepare_seconds": prepared}
        options.json.write_text(json.dumps({**figures, "slowest": slowest, "builds": builds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
