"""The outlier sets of a run: opened, checked, and described for its record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srood.errors import InputError
from srood.methods import METHODS, find_method
from srood.outlier_sources import is_remote, local_manifest, pinned
from srood.outliers import OutlierSet
from srood.scores import SCORES
from train.block_sets import block_sets, describe_reading
from train.config import TuneConfig, outlier_weight, reselection
from train.plan import shares_of

ONLY_WITH_OUTLIERS = (
    *("batch_norm", "epoch_ends_with", "outlier_crop_padding", "outlier_normalisation"),
    *("outlier_order", "outlier_memory", "outlier_blocks"),
)


def pinned_sets(config: TuneConfig) -> TuneConfig:
    """A configuration whose outlier sets on the Hub are named by commit, so that a run stays with those it began with.

    Raises:
        InputError: the Hub cannot be reached, or has no such set.
    """
    named = []
    for spec in config.outliers:
        path, weight = outlier_weight(spec)
        named.append(pinned(path) + ("" if weight == 1 else f":{weight!r}") if is_remote(path) else spec)
    return config.model_copy(update={"outliers": tuple(named)})


def open_sets(config: TuneConfig) -> list[OutlierSet]:
    """Open the outlier sets of a configuration and check that its method uses them.

    Raises:
        InputError: a method without its outliers or outliers without use, a set that cannot be opened or is named
            twice, or a reselection that makes no sense.
    """
    method, sets = find_method(config.workflow), [outlier_weight(spec) for spec in config.outliers]
    if method.outliers and not sets:
        raise InputError(f"--method {method.name}: needs outliers; give --outliers, an outlier set of `curate build`")
    if sets and not method.outliers:
        using = ", ".join(name for name, other in METHODS.items() if other.outliers)
        raise InputError(f"--outliers: method {method.name} uses none; leave it out, or choose one of {using}")
    for name in ONLY_WITH_OUTLIERS if not sets else ():
        if getattr(config, name) != TuneConfig.model_fields[name].default:
            raise InputError(f"--{name.replace('_', '-')}: there are no outliers that it could act on; leave it out")
    if config.reselect:
        score = reselection(config.reselect)[0]
        if not sets:
            raise InputError(f"--reselect {config.reselect}: there are no outliers to choose from; give --outliers")
        if score not in SCORES:
            raise InputError(f"--reselect {config.reselect}: no such score; choose one of {', '.join(SCORES)}")
    opened = [OutlierSet.open(local_manifest(path)) for path, _ in sets]
    for number, found in enumerate(opened):
        for earlier in opened[:number]:
            if earlier.fingerprint == found.fingerprint:
                raise InputError(f"--outliers {found.path}: is the same set as {earlier.path}; name it once")
    return opened


def check_size(sets: Sequence[OutlierSet], size: int) -> None:
    """Check that the images of outlier sets are those of a classifier.

    Raises:
        InputError: a set holds no rows, or images of another size.
    """
    for outliers in sets:
        if outliers.num_rows == 0:
            raise InputError(f"{outliers.path}: holds no rows; build it again with a larger corpus or weaker filters")
        if outliers.image_shape != (size, size, 3):
            height, width, _ = outliers.image_shape
            raise InputError(
                f"{outliers.path}: its images are {height}x{width}, the classifier's {size}x{size}; build it with "
                f"`curate build --image-size {size}`"
            )


def check_unchanged(sets: Sequence[OutlierSet], recorded: Sequence[dict[str, Any]], run: Path) -> None:
    """Check that outlier sets are those that a run was started with.

    Raises:
        InputError: naming the one that is not.
    """
    if len(recorded) != len(sets):
        raise InputError(
            f"{run}: its record names {len(recorded)} outlier sets, its configuration {len(sets)}; restore it"
        )
    for outliers, entry in zip(sets, recorded, strict=True):
        if outliers.fingerprint != entry["fingerprint"]:
            raise InputError(f"{outliers.path}: is not the outlier set that {run} was started with; restore it")


def describe(config: TuneConfig, sets: Sequence[OutlierSet]) -> list[dict[str, Any]]:
    """For the record of a run: file, fingerprint, rows and weight of each set, and how it is read."""
    named = [outlier_weight(spec) for spec in config.outliers]
    shares = shares_of([weight for _, weight in named], config.outlier_batch_size) if named else ()
    return [
        {"file": path, "fingerprint": found.fingerprint, "rows": found.num_rows, "weight": weight}
        | describe_reading(how, share)
        for (path, weight), found, how, share in zip(named, sets, block_sets(config, sets), shares, strict=True)
    ]
