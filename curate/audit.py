"""Which images of two sets, or of one, are the same picture: what `curate build` drops leaks with, as a list."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from rich.console import Console

from curate import leaks
from curate.config import check_limits, check_seed
from curate.copies import CopyThreshold
from curate.dedup import group_pairs
from curate.outputs import make_folder_of
from srood import datasets
from srood.errors import InputError
from srood.files import replace_file
from srood.images import DEFAULT_LIMITS, Limits
from srood.progress import progress_bar

COLUMNS = ("row_a", "row_b", "key_a", "key_b", "similarity", "kind")
FORMATS = (".parquet", ".csv")
DECIMALS = 6  # of a similarity, so that both formats hold the same number
CALIBRATION_IMAGES = 1_000  # as many as `curate build` draws from the ID set


@dataclass(frozen=True)
class Pairs:
    """Pairs of the same picture, ordered by `place_a`, falling `similarity`, `place_b`; every array has length M.

    `place_a` and `place_b` int64 are positions among the decoded images of A and B, `similarity` float64 with six
    decimals, `kind` "exact" (the same pixels) or "near".
    """

    place_a: np.ndarray
    place_b: np.ndarray
    similarity: np.ndarray
    kind: np.ndarray

    def __len__(self) -> int:
        return len(self.place_a)

    def closest(self, count: int) -> np.ndarray:
        """Positions of the `count` most similar pairs, exact ones first."""
        return np.lexsort((self.place_b, self.place_a, -self.similarity, self.kind))[:count]


@dataclass(frozen=True)
class Audit:
    """What an audit found; `b` is `a` where one set was searched within.

    `representative` (int64, one entry an image of A) then is the image that stands for each one's group, as in a build.
    """

    a: datasets.Images
    b: datasets.Images
    threshold: CopyThreshold
    pairs: Pairs
    representative: np.ndarray | None = None

    @property
    def within(self) -> bool:
        """Whether one set was searched within."""
        return self.representative is not None

    def flagged(self) -> np.ndarray:
        """Positions of the images of A that are in a pair, ascending."""
        return np.union1d(self.pairs.place_a, self.pairs.place_b if self.within else ())

    def table(self, order: np.ndarray | None = None) -> pa.Table:
        """The pairs with row numbers and keys of the sets as they are read: the columns COLUMNS."""
        chosen = self.pairs if order is None else Pairs(*(x[order] for x in vars(self.pairs).values()))
        values = (
            pa.array(self.a.rows[chosen.place_a]),
            pa.array(self.b.rows[chosen.place_b]),
            pa.array([self.a.keys[place] for place in chosen.place_a], pa.string()),
            pa.array([self.b.keys[place] for place in chosen.place_b], pa.string()),
            pa.array(chosen.similarity),
            pa.array(chosen.kind.tolist(), pa.string()),
        )
        return pa.table(dict(zip(COLUMNS, values, strict=True)))

    def summary(self, closest: int = 10) -> dict[str, Any]:
        """Counts, the threshold with its calibration, and the closest pairs, as JSON holds them."""
        kinds = {kind: int((self.pairs.kind == kind).sum()) for kind in ("exact", "near")}
        found: dict[str, Any] = {
            "a": _describe(self.a),
            "b": None if self.within else _describe(self.b),
            "flagged": len(self.flagged()),
            "pairs": {"all": len(self.pairs), **kinds},
            "threshold": self.threshold.to_dict(),
            "closest": self.table(self.pairs.closest(closest)).to_pylist(),
        }
        if self.representative is not None:
            sizes = np.unique(self.representative, return_counts=True)[1]
            found["groups"] = {
                "number": int((sizes > 1).sum()),
                "largest": int(sizes.max()),
                "repeats": len(self.representative) - len(sizes),
            }
        return found


def audit(
    a: str,
    b: str | None = None,
    *,
    image_size: int = 32,
    seed: int = 0,
    workers: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    console: Console | None = None,
) -> Audit:
    """Judge every pair of images of `a` and `b` (image specs), or of two images of `a` where `b` is None.

    The threshold is calibrated on images drawn from `b` (or `a`) by `seed`. Images are brought to `image_size` as a
    build brings them; "exact" means the same pixels at that size. Images beyond `limits` are left out, and counted.

    Raises:
        InputError: a spec resolves nowhere or holds no image, or an option has a value that cannot be used.
    """
    if image_size < 8:
        raise InputError(f"--image-size {image_size}: must be at least 8")
    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers}: must be at least 1")
    check_seed(seed)
    check_limits(limits)
    sources = [datasets.resolve(spec) for spec in (a, b) if spec is not None]
    with progress_bar("images", console) as progress:
        task = progress.add_task("decode", total=None, note="")
        loaded = []
        for source in sources:
            progress.update(task, note=source.spec)
            loaded.append(datasets.load_source(source, image_size, workers, True, limits))
            progress.advance(task, len(loaded[-1].images))
        progress.update(task, total=sum(len(images.images) for images in loaded), note="")
        first, second = loaded[0], loaded[-1]

        task = progress.add_task("calibrate the copy threshold", total=None, note="")
        sample = leaks.calibration_sample(second.images, CALIBRATION_IMAGES, seed)
        threshold = replace(leaks.calibrate_copies(sample, seed, workers), images=len(sample))
        progress.update(task, note=f"similarity {threshold.similarity}")

        task = progress.add_task("search", total=len(first.images), note="")
        index = leaks.ProtectedIndex(second.images, threshold, workers)
        found = index.search(first.images, within=b is None, advance=lambda count: progress.advance(task, count))
        representative = None if b is not None else group_pairs(first.images, found, threshold)
    return Audit(first, second, threshold, _ordered(found, b is None), representative)


def check_outputs(out: Path | None, html: Path | None) -> None:
    """Make the folders of the files to be written where they are missing.

    Raises:
        InputError: a file cannot be written, or its name has a wrong ending.
    """
    for option, path, endings in (("--out", out, FORMATS), ("--html", html, (".html", ".htm"))):
        if path is None:
            continue
        if path.suffix.lower() not in endings:
            raise InputError(f"{option} {path}: must end in {' or '.join(endings)}")
        if path.is_dir():
            raise InputError(f"{option} {path}: is a folder; name a file in it")
        make_folder_of(path, option)


def write_pairs(found: Audit, path: Path) -> None:
    """Write the pairs as Parquet or CSV, by the ending of `path`; never half a file."""
    write = pq.write_table if path.suffix.lower() == ".parquet" else pyarrow.csv.write_csv
    replace_file(path, lambda beside: write(found.table(), beside))


def _ordered(found: leaks.Matches, within: bool) -> Pairs:
    """The matches in the order of Pairs; within a set each unordered pair once, with the larger similarity."""
    a, b, kind = found.query, found.protected, found.kind
    similarity = np.round(found.similarity.astype(np.float64), DECIMALS)
    if within:
        low, high = np.minimum(a, b), np.maximum(a, b)
        order = np.lexsort((-similarity, high, low))
        first = np.ones(len(order), bool)
        first[1:] = (np.diff(low[order]) != 0) | (np.diff(high[order]) != 0)
        order = order[first]
        a, b, similarity, kind = low[order], high[order], similarity[order], kind[order]
    order = np.lexsort((b, -similarity, a))
    return Pairs(a[order], b[order], similarity[order], kind[order])


def _describe(images: datasets.Images) -> dict[str, Any]:
    return {
        "name": images.spec,
        "images": len(images.images),
        "skipped": images.skipped,
        "fingerprint": images.fingerprint,
    }
