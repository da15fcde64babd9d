"""Labels as numbers: of texts, and of what files hold as numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from srood.errors import InputError


def number_labels(labels: Sequence[str | None]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as numbers.

    Returns:
        int64 (N,): the integers themselves where all labels are integers, else indices into the names; -1 for None.
        the sorted distinct labels, or empty for integers.
    """
    known = {label for label in labels if label is not None}
    if all(re.fullmatch(r"-?[0-9]{1,9}", label) for label in known):
        return np.array([-1 if label is None else max(-1, int(label)) for label in labels], np.int64), ()
    return name_labels(labels)


def name_labels(labels: Sequence[str | None]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as indices into their sorted names, which may be numbers as those of folders are; -1 for None.

    Returns:
        int64 (N,), and the names.
    """
    names = tuple(sorted({label for label in labels if label is not None}))
    index = {name: number for number, name in enumerate(names)}
    return np.array([-1 if label is None else index[label] for label in labels], np.int64), names


def whole_label(label: float | None, place: str) -> int:
    """A label as a number: -1 where there is none (None, NaN, below zero) or none that int64 holds.

    Raises:
        InputError: it is no whole number; `place` is what the message begins with.
    """
    if label is None or label != label:
        return -1
    if isinstance(label, float) and not label.is_integer():
        raise InputError(f"{place}: has the label {label}, which is no whole number; write class numbers from 0")
    return int(label) if 0 <= label < 1 << 63 else -1
