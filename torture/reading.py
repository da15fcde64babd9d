"""Reads images as a build does: `python -m torture.reading SPEC` prints their hashes and why others fail."""

from __future__ import annotations

import json
import sys
from collections import Counter

from curate.semantics import load_exclusions
from srood import commands
from srood.datasets import resolve
from srood.hashes import pixel_sha256
from srood.images import decode_to_size


def main() -> None:
    """Print what a spec gives."""
    commands.run(_read)


def _read() -> None:
    if sys.argv[1].endswith(".yaml"):
        load_exclusions(sys.argv[1])
        return
    good, reasons = [], Counter[str]()
    for row in resolve(sys.argv[1]).rows():
        found = decode_to_size(row.data, 32)
        if isinstance(found, str):
            reasons[found] += 1
        else:
            good.append(pixel_sha256(found))
    print(json.dumps({"good": good, "reasons": reasons}))


if __name__ == "__main__":
    main()
