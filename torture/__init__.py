"""Faults and bad inputs on purpose: what `make torture` tries, counts and writes to docs/reliability.md."""

import sys
from pathlib import Path

# the tests make the image sets and serve the Hub that trials use too
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
