"""Recall of planted copies by kind, and false drops among unrelated rows, at the scale of a real build.

    python benchmarks/leaks.py --id cifar10 --corpus tiny-imagenet:corpus

Copies of ID test images are searched among the ID train and test images with the calibrated threshold. A copy counts
as found where it is matched with the image it was made of. Rows of the corpus that are flagged count as false drops
(a few may be true copies: look before calling them errors).
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from curate.leaks import ProtectedIndex, calibrate_copies
from srood import datasets

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrored."""
    return np.ascontiguousarray(image[:, ::-1])


def shift(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moved by up to 3 pixels each way, the edge repeated."""
    top, left = rng.integers(0, 7, 2)
    height, width = image.shape[:2]
    return np.pad(image, ((3, 3), (3, 3), (0, 0)), "edge")[top : top + height, left : left + width]


def jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Re-encoded as JPEG of quality 60."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=60)
    return np.asarray(Image.open(buffer))


def brighten(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A fifth brighter."""
    return np.clip(image * 1.2, 0, 255).astype(np.uint8)


def grey(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Without colour."""
    return np.asarray(Image.fromarray(image).convert("L").convert("RGB"))


def crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """80 to 95 % of the side, scaled up again."""
    side = image.shape[0]
    share = rng.uniform(0.8, 0.95)
    left, top = rng.uniform(0, 1 - share, 2) * side
    box = (left, top, left + share * side, top + share * side)
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC, box=box))


KINDS: dict[str, tuple[Change, ...]] = {
    "mirrored": (flip,),
    "shifted by up to 3 pixels": (shift,),
    "JPEG 60": (jpeg,),
    "brightened by 20 %": (brighten,),
    "all four": (flip, shift, brighten, jpeg),
    "greyscale": (grey,),
    "cropped to 80-95 %": (crop,),
}


def planted(images: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A copy of each image, changed as `kind` (a key of KINDS) says."""
    copies = []
    for image in images:
        for change in KINDS[kind]:
            image = change(image, rng)
        copies.append(image)
    return np.stack(copies)


def measure(train: np.ndarray, test: np.ndarray, corpus: np.ndarray, count: int, seed: int) -> dict[str, Any]:
    """Recall by kind of copy and false drops, with the threshold that a build would calibrate."""
    rng = np.random.default_rng(seed)
    threshold = calibrate_copies(train[rng.permutation(len(train))[:1000]], seed)
    start = time.perf_counter()
    index = ProtectedIndex(np.concatenate([train, test]), threshold)
    indexed = time.perf_counter() - start
    chosen = rng.permutation(len(test))[:count]
    found: dict[str, float] = {}
    for kind in KINDS:
        matches = index.search(planted(test[chosen], kind, rng))
        own = matches.protected == len(train) + chosen[matches.query]
        found[kind] = len(np.unique(matches.query[own])) / len(chosen)
    start = time.perf_counter()
    flagged = np.unique(index.search(corpus).query)
    searched = time.perf_counter() - start
    return {
        "threshold": threshold.similarity,
        "protected": len(index),
        "copies": len(chosen),
        "found": found,
        "corpus_rows": len(corpus),
        "corpus_flagged": len(flagged),
        "seconds": {"index": round(indexed, 1), "search_corpus": round(searched, 1)},
    }


def main() -> None:
    """Parse, measure, print a table and (``--json``) write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--id", default="cifar10")
    parser.add_argument("--corpus", default="tiny-imagenet:corpus")
    parser.add_argument("--copies", type=int, default=1000, help="copies of each kind")
    parser.add_argument("--limit", type=int, help="use only so many rows of each set (for a quick look)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    train_spec, test_spec = datasets.id_specs(options.id)
    if test_spec is None:
        raise SystemExit(f"--id {options.id}: needs a test split")
    limit = slice(options.limit)
    sets = (datasets.load_images(spec).images[limit] for spec in (train_spec, test_spec, options.corpus))
    result = measure(*sets, options.copies, options.seed)

    print(
        f"threshold {result['threshold']}; {result['protected']:,} protected images; "
        f"{result['copies']:,} copies of each kind"
    )
    for kind, share in result["found"].items():
        print(f"{kind:28} {share:7.1%} found")
    share = result["corpus_flagged"] / result["corpus_rows"]
    print(f"{'unrelated rows of the corpus':28} {share:7.2%} dropped ({result['corpus_flagged']} rows)")
    seconds = result["seconds"]
    print(f"index {seconds['index']} s, search of the corpus {seconds['search_corpus']} s")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
