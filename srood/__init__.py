"""Out-of-distribution detection by sparsity-regularised tuning: the parts that `curate` and `train` share."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srood.detector import load_detector

__all__ = ["__version__", "load_detector"]

try:
    __version__ = version("srood")
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name == "load_detector":  # on demand: it brings torch
        from srood.detector import load_detector

        return load_detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
