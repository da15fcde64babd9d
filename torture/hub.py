"""What trials take from the tests: the Hub on this machine, and small image sets. No other module looks into tests."""

from __future__ import annotations

import sys
from types import ModuleType

from torture.processes import ROOT

if str(ROOT / "tests") not in sys.path:
    sys.path.insert(0, str(ROOT / "tests"))

from hub_server import HubServer
from pictures import pictures, write_parquet

__all__ = ["HubServer", "digits_images", "pictures", "write_parquet"]


def digits_images() -> ModuleType:
    """The tests' digits, noise, and weights to start from; imported only here, as PyTorch takes seconds to."""
    import digits_images

    return digits_images
