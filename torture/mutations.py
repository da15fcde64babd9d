"""Ways to spoil the bytes of an image file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

Files = dict[str, list[bytes]]  # by format
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
KINDS = (
    "bits flipped",
    "cut short",
    "spliced with a file of another format",
    "spliced with a file of the same format",
    "a segment left out",
    "a segment repeated",
    "a number changed",
    "bytes replaced by random ones",
    "random bytes behind a true beginning",
)


def mutate(files: Files, kind: str, rng: np.random.Generator) -> bytes:
    """One of the files, spoiled."""
    name = list(files)[rng.integers(len(files))]
    data = _one(files[name], rng)
    if kind == "bits flipped":
        return flip(data, int(2 ** rng.integers(0, 6)), rng)
    if kind == "cut short":
        return data[: rng.integers(len(data))]
    if kind.startswith("spliced"):
        others = [other for other in files if (other == name) == kind.endswith("the same format")]
        second = _one(files[others[rng.integers(len(others))]], rng)
        return data[: rng.integers(len(data))] + second[rng.integers(len(second)) :]
    if kind == "bytes replaced by random ones":
        start, count = int(rng.integers(len(data))), int(rng.integers(1, 64))
        return _checked(data[:start] + rng.bytes(count) + data[start + count :], name, rng)
    if kind == "random bytes behind a true beginning":
        return data[: rng.integers(1, 40)] + rng.bytes(int(rng.integers(600)))
    parts = segments(data, name, rng)
    if kind == "a segment left out":
        del parts[rng.integers(len(parts))]
    elif kind == "a segment repeated":
        number = int(rng.integers(len(parts)))
        parts[number:number] = [parts[number]] * int(2 ** rng.integers(0, 5))
    elif kind == "a number changed":
        number = int(rng.integers(len(parts)))
        part = bytearray(parts[number])
        at, width = int(rng.integers(min(len(part), 24))), int(rng.choice([1, 2, 4]))
        order = rng.choice(["<", ">"])
        value = NUMBERS[rng.integers(len(NUMBERS))] % (1 << 8 * width)
        part[at : at + width] = struct.pack(f"{order}{' BH I'[width]}", value)
        parts[number] = bytes(part)
        return _checked(b"".join(parts), name, rng)
    else:
        raise ValueError(kind)
    return b"".join(parts)


def flip(data: bytes, bits: int, rng: np.random.Generator) -> bytes:
    """So many bits of a file flipped."""
    changed = bytearray(data)
    for at in rng.integers(8 * len(data), size=bits).tolist():
        changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def segments(data: bytes, name: str, rng: np.random.Generator) -> list[bytes]:
    """A file in the parts that its format has; of others, in eight parts anywhere."""
    if name == "JPEG":
        cuts = [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] not in (0, 0xFF)]
    elif name == "PNG":
        cuts, at = [], 8
        while at < len(data):
            cuts.append(at)
            at += 12 + int.from_bytes(data[at : at + 4], "big")
    elif name == "WebP":
        cuts, at = [], 12
        while at < len(data):
            cuts.append(at)
            at += 8 + (int.from_bytes(data[at + 4 : at + 8], "little") + 1) // 2 * 2
    else:
        cuts = sorted(rng.integers(1, len(data), size=7).tolist())
    edges = [0, *[cut for cut in cuts if 0 < cut < len(data)], len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


def _checked(data: bytes, name: str, rng: np.random.Generator) -> bytes:
    """Every other time a PNG's checksums are made to fit: else little behind them would be reached."""
    if name != "PNG" or rng.random() < 0.5:
        return data
    fixed, at = bytearray(data), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        fixed[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


def _one(files: Sequence[bytes], rng: np.random.Generator) -> bytes:
    return files[rng.integers(len(files))]
