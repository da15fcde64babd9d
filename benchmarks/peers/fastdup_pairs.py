"""fastdup on a folder, with its own settings. Runs in an environment of its own.

    python fastdup_pairs.py FOLDER RESULT WORKERS

RESULT becomes fastdup's working folder; its similarity.csv holds what it found.
"""

from __future__ import annotations

import sys

import fastdup


def main() -> None:
    """Features, neighbours, components; then the table of pairs, as fastdup's documentation does it."""
    found = fastdup.create(input_dir=sys.argv[1], work_dir=sys.argv[2])
    found.run(num_threads=int(sys.argv[3]))
    print(f"{len(found.similarity())} pairs")


if __name__ == "__main__":
    main()
