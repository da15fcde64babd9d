"""Each image's scores, kept beside an evaluation so that it can be compared and plotted without a forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from srood.errors import InputError
from srood.files import replace_file

RESULT_FILE = "eval.json"
SCORES_FILE = "eval-scores.npz"
ScoresOf = dict[str, np.ndarray]  # (N,) by name of the score


def write_scores(path: Path, id_scores: ScoresOf, ood_scores: Mapping[str, ScoresOf]) -> None:
    """Each image's scores as float32 arrays for ``np.load``: ``SCORE|`` of ID images, ``SCORE|SPEC`` of an OOD set."""
    arrays = {
        f"{score}|{spec}": values.astype(np.float32)
        for spec, scores in {"": id_scores, **ood_scores}.items()
        for score, values in scores.items()
    }

    def write(beside: Path) -> None:
        with open(beside, "wb") as file:  # np.savez would add .npz to a name
            np.savez(file, **arrays)  # type: ignore[arg-type]

    replace_file(path, write)


def read_scores(path: Path, score: str) -> dict[str, np.ndarray]:
    """One score of all images that `write_scores` wrote: (N,) float32 by spec of the OOD set, ``""`` for ID.

    Raises:
        InputError: no such file, a damaged one, or one without this score.
    """
    try:
        with np.load(path) as file:
            wanted = {name: name.partition("|")[2] for name in file.files if name.partition("|")[0] == score}
            # by the member's own name: without .npy, "a.npy" would be taken for the member of "a"
            arrays = {spec: file[f"{name}.npy"] for name, spec in wanted.items()}
    except Exception as error:  # a damaged zip raises nearly anything
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise InputError(f"{path}: {reason}; run `srood eval` again") from error
    if "" not in arrays:
        raise InputError(f"{path}: holds no score '{score}'; run `srood eval` again with --score {score}")
    return arrays
