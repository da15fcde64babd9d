"""A folder of JPEG files with planted copies, and the truth about them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from curate.copies import COPIES, synthetic_copies
from srood import datasets, images
from srood.errors import InputError

QUALITY = 95  # of the copies' files; kinds with "jpeg" in them were recompressed before that too

Pair = tuple[str, str]  # two file names, the lesser first


@dataclass(frozen=True)
class Planted:
    """How many files a folder holds, and by kind of copy its pairs of an image and the copy made of it."""

    images: int
    pairs: dict[str, set[Pair]]

    def every(self) -> set[Pair]:
        """The pairs of all kinds."""
        return set().union(*self.pairs.values())


def write_folder(folder: Path, spec: str, count: int, seed: int = 0) -> Planted:
    """Write `count` JPEG files: images of `spec`, and of every hundredth of them a copy of each kind of COPIES.

    An image has one copy at the most. JPEG bytes of the source stay as they are. Names are numbers in random order, so
    that neither they nor the order of reading tell what is a copy of what.

    Raises:
        InputError: `spec` holds too few images.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0xD0]))
    each = max(1, count // 100)
    originals = count - each * len(COPIES)
    files = [_jpeg_bytes(row.data) for row in islice(datasets.resolve(spec).rows(), originals)]
    if len(files) < max(originals, each * len(COPIES)):
        raise InputError(f"{spec}: holds {len(files):,} images; {count:,} files with copies need {originals:,}")
    names = [f"{number:06d}.jpg" for number in rng.permutation(count)]
    chosen = rng.permutation(originals)[: each * len(COPIES)].reshape(len(COPIES), each)
    pairs: dict[str, set[Pair]] = {}
    for kind, rows in zip(COPIES, chosen, strict=True):
        pairs[kind] = set()
        for row in rows:
            copy = synthetic_copies(np.asarray(images.decode(files[row]))[None], kind, rng)[0]
            pairs[kind].add(pair(names[row], names[len(files)]))
            files.append(_encode(Image.fromarray(copy)))
    folder.mkdir()
    for name, data in zip(names, files, strict=True):
        (folder / name).write_bytes(data)
    return Planted(count, pairs)


def pair(a: str, b: str) -> Pair:
    """Two names in the order in which pairs are compared."""
    return (a, b) if a < b else (b, a)


def _jpeg_bytes(data: images.Encoded) -> bytes:
    if isinstance(data, bytes) and data.startswith(b"\xff\xd8"):
        return data
    return _encode(images.decode(data))


def _encode(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
