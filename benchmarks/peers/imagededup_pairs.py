"""imagededup's PHash on a folder, with its own settings. Runs in an environment of its own.

    python imagededup_pairs.py FOLDER RESULT WORKERS

RESULT/duplicates.json is what it writes. Its CNN is left out: the weights would have to be downloaded.
"""

from __future__ import annotations

import os
import sys

from imagededup.methods import PHash


def main() -> None:
    """Hash and compare; 10 of 64 bits is imagededup's default distance."""
    folder, result, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    os.makedirs(result)
    PHash(verbose=False).find_duplicates(
        image_dir=folder,
        max_distance_threshold=10,
        scores=True,
        outfile=os.path.join(result, "duplicates.json"),
        num_enc_workers=workers,
        num_dist_workers=workers,
    )


if __name__ == "__main__":
    main()
