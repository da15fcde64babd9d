"""What trials take from the tests: the Hub on this machine, and small image sets. No other module looks into tests."""

from __future__ import annotations

from types import ModuleType

from hub_server import HubServer
from pictures import pictures, write_parquet

__all__ = ["HubServer", "digits_images", "pictures", "write_parquet"]


def digits_images() -> ModuleType:
    """The tests' digits, noise, and weights to start from; imported only here, as PyTorch takes seconds to."""
    import digits_images

    return digits_images
