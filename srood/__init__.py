"""Out-of-distribution detection by sparsity-regularised tuning: the parts that `curate` and `train` share."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("srood")
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"
