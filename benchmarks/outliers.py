"""How fast random batches of outliers are read for training, beside other ways to store and read the same rows.

    python benchmarks/outliers.py

A set of 20,000 images is made of a named set, or of noise where that is not to be had, and exported. Each reader gives
uint8 batches of 256 rows in random order, one pass over all rows after the other. In every round each reader is opened
and makes a first pass, before which the pages of its files are dropped (posix_fadvise DONTNEED; names of files stay
cached), and then a second, warm one. Opening counts to the first pass. A pass ends after --seconds, if not before.
Ratios are to the faster ImageFolder, in the same round, or to Parquet where torchvision is missing.

Readers "of 2 workers" decode in two processes; the others in one. The block reader has a thread that reads ahead.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import h5py
import numpy as np
import torch
import webdataset
from export import make_set, read_images
from spread import spread
from torch.utils.data import DataLoader

from curate.exporting.export import export
from srood.outlier_blocks import BlockReader
from srood.outliers import OutlierSet
from srood.shuffle_quality import shuffle_quality

Batches = Iterator[Any]  # (n, H, W, 3) or (n, 3, H, W) uint8, arrays or tensors
Passes = Callable[[int], Batches]  # the batches of a pass, by its number
Opener = Callable[[], AbstractContextManager[Passes]]
WORKERS = (0, 2)
PEER = "ImageFolder, DataLoader"


@contextmanager
def in_memory(path: Path, batch: int) -> Iterator[Passes]:
    """The whole set as one tensor, as `srood train` holds it."""
    images = torch.from_numpy(OutlierSet.open(path, check_hashes=False).read_images())

    def batches(number: int) -> Batches:
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(number))
        return (images.index_select(0, rows) for rows in order.split(batch))

    yield batches


@contextmanager
def in_blocks(path: Path, batch: int, window: int) -> Iterator[Passes]:
    """The block reader; a pass is the next so many steps of its stream, of whole batches."""
    opened = OutlierSet.open(path, check_hashes=False)
    with BlockReader(opened, min(window, opened.num_rows), seed=0) as reader:
        steps = max(1, opened.num_rows // batch)
        yield lambda number: (reader.rows(step, batch) for step in range(number * steps, (number + 1) * steps))


@contextmanager
def in_hdf5(path: Path, batch: int) -> Iterator[Passes]:
    """Plain h5py: the rows of a batch in ascending order, as h5py wants them."""
    with h5py.File(path) as file:
        images = file["image"]

        def batches(number: int) -> Batches:
            order = np.random.default_rng(number).permutation(len(images))
            return (images[np.sort(order[start : start + batch])] for start in range(0, len(order), batch))

        yield batches


@contextmanager
def in_folder(path: Path, batch: int, workers: int) -> Iterator[Passes]:
    """torchvision's ImageFolder; pixels stay uint8."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import PILToTensor

    rows = ImageFolder(str(path), PILToTensor())
    loader = DataLoader(rows, batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    yield lambda number: (pixels for pixels, _ in loader)


@contextmanager
def in_parquet(files: list[str], cache: str, batch: int, workers: int) -> Iterator[Passes]:
    """`datasets`; the conversion to Arrow files was made before."""
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    rows = rows.select_columns(["image"]).with_format("torch")
    loader = DataLoader(rows, batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    yield lambda number: (columns["image"] for columns in loader)


@contextmanager
def in_tars(files: list[str], batch: int, workers: int, window: int) -> Iterator[Passes]:
    """webdataset, with a shuffle buffer of `window` rows."""
    rows = webdataset.WebDataset(files, shardshuffle=len(files), seed=0).shuffle(window)
    rows = rows.decode("rgb8").to_tuple("png").batched(batch)
    loader = webdataset.WebLoader(rows, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    yield lambda number: (pixels for (pixels,) in loader)


def readers(opened: OutlierSet, folder: Path, batch: int, window: int) -> dict[str, tuple[Path, Opener]]:
    """Every reader with the files it reads, which are written here."""
    for name in ("parquet", "webdataset", "imagefolder", "hdf5"):
        export(str(opened.path), name, folder / name)
    guessed = folder / "guessed.h5"
    with h5py.File(guessed, "w") as file:
        file.create_dataset("image", data=opened.read_images(), chunks=True, compression="gzip")
    tables = sorted(map(str, (folder / "parquet").glob("*.parquet")))
    tar_files = folder / "webdataset"
    tars = sorted(map(str, tar_files.glob("*.tar")))
    cache, plain = folder / "arrow", folder / "hdf5" / f"{opened.path.stem}.hdf5"
    datasets.load_dataset("parquet", data_files=tables, split="train", cache_dir=str(cache))
    if hasattr(os, "sync"):
        os.sync()  # pages that are not yet written cannot be dropped
    found: dict[str, tuple[Path, Opener]] = {
        "srood, in memory": (opened.path.parent, partial(in_memory, opened.path, batch)),
        "srood, block reader": (opened.path.parent, partial(in_blocks, opened.path, batch, window)),
        "h5py, chunks of 64 rows": (plain, partial(in_hdf5, plain, batch)),
        "h5py, automatic chunks, gzip": (guessed, partial(in_hdf5, guessed, batch)),
    }
    for workers in WORKERS:
        of = f" of {workers} workers" if workers else ""
        if find_spec("torchvision"):
            root = folder / "imagefolder" / "train"
            found[f"{PEER}{of}"] = root, partial(in_folder, root, batch, workers)
        found[f"datasets, Parquet{of}"] = cache, partial(in_parquet, tables, str(cache), batch, workers)
        found[f"webdataset, shuffle buffer{of}"] = tar_files, partial(in_tars, tars, batch, workers, window)
    return found


def drop_pages(path: Path) -> bool:
    """Ask the system to forget a file's pages, or those of all files of a folder; False where it cannot be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for file in [path] if path.is_file() else filter(Path.is_file, path.rglob("*")):
        handle = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
    return True


def bytes_from_disk() -> int | None:
    """Bytes that this process has had read from storage (Linux); those of its workers are not among them."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def time_pass(batches: Batches, started: float, seconds: float) -> float:
    """Rows a second since `started`, of a pass or of what there is of it after `seconds`."""
    rows = 0
    for pixels in batches:
        rows += len(pixels)
        if time.perf_counter() - started > seconds:
            break
    return rows / (time.perf_counter() - started)


def measure(contenders: dict[str, tuple[Path, Opener]], rounds: int, seconds: float) -> dict[str, dict[str, Any]]:
    """Rows a second of the first and of the second pass of each reader in each round."""
    found: dict[str, dict[str, Any]] = {name: {"first": [], "warm": [], "from_disk": []} for name in contenders}
    for number in range(rounds):
        names = list(contenders)
        for name in names if number % 2 == 0 else reversed(names):
            files, opener = contenders[name]
            drop_pages(files)
            before, started = bytes_from_disk(), time.perf_counter()
            with opener() as passes:
                found[name]["first"].append(time_pass(passes(0), started, seconds))
                after = bytes_from_disk()
                found[name]["warm"].append(time_pass(passes(1), time.perf_counter(), seconds))
            if before is not None and after is not None:
                found[name]["from_disk"].append(after - before)
    return found


def against(found: dict[str, dict[str, Any]], which: str) -> str:
    """The reader that ratios are to: the peer's faster one, or Parquet's."""
    peer = PEER if PEER in found else "datasets, Parquet"
    alike = [name for name in found if name.startswith(peer)]
    return max(alike, key=lambda name: median(found[name][which]))


def print_table(found: dict[str, dict[str, Any]], bases: dict[str, str]) -> None:
    """A Markdown table, ratios first."""
    if not find_spec("torchvision"):
        print("torchvision is not installed: ImageFolder is left out")
    if not hasattr(os, "posix_fadvise"):
        print("pages cannot be dropped here: first passes are not cold")
    print(f"ratios: warm to {bases['warm']}; first pass to {bases['first']}\n")
    heads = ("reader", "times as fast, warm", "times as fast, first pass", "rows/s, warm", "rows/s, first pass")
    print("| " + " | ".join((*heads, "MB from disk")) + " |\n" + "|---" * (len(heads) + 1) + "|")
    for name, entry in found.items():
        cells = [spread(entry[f"{which}_ratios"], ".2f") for which in bases]
        cells += [spread(entry[which], ",.0f") for which in bases]
        # workers' reads are not counted
        cells.append(f"{median(entry['from_disk']) / 1e6:.0f}" if entry["from_disk"] and "workers" not in name else "")
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    """Parse, measure, print a table and (``--json``) write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", default="cifar10:train", help="image set of which the outlier set is made")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--shard-rows", type=int, default=5_000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--window", type=int, default=4096, help="rows of the block reader's window and shuffle buffer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of a pass at the most")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    datasets.disable_progress_bars()
    images, name = read_images(options.spec, options.rows, 32)
    with tempfile.TemporaryDirectory() as folder:
        opened = make_set(Path(folder) / "set", images, options.shard_rows)
        with BlockReader(opened, min(options.window, len(images)), seed=0) as reader:
            order, quality = reader.order, shuffle_quality(reader.order, options.batch_size)
        contenders = readers(opened, Path(folder), options.batch_size, options.window)
        found = measure(contenders, options.rounds, options.seconds)
    bases = {which: against(found, which) for which in ("warm", "first")}
    for entry in found.values():
        for which, base in bases.items():
            pairs = zip(entry[which], found[base][which], strict=True)
            entry[f"{which}_ratios"] = [ours / theirs for ours, theirs in pairs]

    where = f"{os.cpu_count()} processors, {torch.get_num_threads()} threads of torch"
    print(f"{len(images):,} rows of {name} at 32x32, batches of {options.batch_size}, {where}, ", end="")
    print(f"{options.rounds} rounds: median (least to most)")
    print_table(found, bases)
    print(
        f"\nblock reader: {len(order.blocks)} blocks, {order.windows} windows of {options.window:,} rows at the most\n"
        f"deviation of the rank correlation of stored and drawn positions: {quality.rank_correlation:.4f}, "
        f"of a full shuffle {quality.full_rank_correlation:.4f}\n"
        f"blocks of a batch: {quality.blocks_per_batch:.2f}, of a full shuffle {quality.full_blocks_per_batch:.2f}"
    )
    if options.json:
        document = {"rows": len(images), "images": name, "against": bases, "readers": found, "quality": vars(quality)}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
