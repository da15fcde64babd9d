"""What imagededup's perceptual hashes find of planted copies. Runs in an environment of its own.

    python imagededup_copies.py images.npz result.json

images.npz holds `protected` (P, H, W, 3) uint8, `chosen` (C,) the protected rows that were copied, one array
`copies:KIND` (C, H, W, 3) for each kind, and `corpus` (N, H, W, 3) of unrelated rows.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from imagededup.methods import DHash, PHash

DISTANCES = (0, 4, 10)  # of 64 bits; 10 is imagededup's default


def bits(hasher, images: np.ndarray) -> np.ndarray:
    """Hashes as packed bytes, (N, 8) uint8."""
    return np.array([list(bytes.fromhex(hasher.encode_image(image_array=image))) for image in images], np.uint8)


def distances(queries: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Hamming distances (Q, P); the same as imagededup's own search, which is quadratic in Python."""
    count = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1).astype(np.uint8)
    result = np.zeros((len(queries), len(base)), np.uint8)
    for column in range(8):
        result += count[queries[:, column, None] ^ base[None, :, column]]
    return result


def main() -> None:
    """Hash, compare, write recall by kind and the share of unrelated rows flagged, by distance."""
    data = np.load(sys.argv[1])
    chosen = data["chosen"]
    results = {}
    for hasher in (PHash(verbose=False), DHash(verbose=False)):
        start = time.perf_counter()
        base = bits(hasher, data["protected"])
        by_kind = {
            name.removeprefix("copies:"): distances(bits(hasher, data[name]), base)[np.arange(len(chosen)), chosen]
            for name in data.files
            if name.startswith("copies:")
        }
        nearest = np.concatenate(
            [distances(bits(hasher, part), base).min(axis=1) for part in np.array_split(data["corpus"], 20)]
        )
        for limit in DISTANCES:
            results[f"{type(hasher).__name__}, distance {limit}"] = {
                "found": {kind: float((own <= limit).mean()) for kind, own in by_kind.items()},
                "false_drops": float((nearest <= limit).mean()),
                "seconds": round(time.perf_counter() - start, 1),
            }
    with open(sys.argv[2], "w") as file:
        json.dump(results, file)


if __name__ == "__main__":
    main()
