"""Several evaluations side by side: what may be compared, and the figures of each run and score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srood.errors import InputError
from train.evaluation.measures import Metrics, average
from train.evaluation.read_results import read_result
from train.evaluation.score_files import RESULT_FILE, SCORES_FILE, read_scores

ScorePair = tuple[np.ndarray, np.ndarray]  # scores of ID images (N,) and of OOD images (M,)


@dataclass(frozen=True)
class Evaluated:
    """An evaluation that was read back: its name in tables, its file, and what that holds."""

    name: str
    file: Path
    result: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Where the images' scores lie."""
        return self.file.parent

    def scores(self, score: str) -> list[dict[str, np.ndarray]]:
        """Each image's scores by OOD set, ``""`` for ID: one dict, or one a seed.

        Raises:
            InputError: they were not kept, or are not of this evaluation.
        """
        if self.file.name != RESULT_FILE:
            raise InputError(
                f"{self.file}: images' scores lie beside {RESULT_FILE} alone; give the folder of the evaluation"
            )
        found = []
        for name in self.result.get("runs", {"": None}):
            path = self.folder / name / SCORES_FILE
            arrays = read_scores(path, score)
            expected = {"": self.result["id"]["images"]}
            expected |= {spec: entry["images"] for spec, entry in self.result["ood"].items()}
            if {spec: len(values) for spec, values in arrays.items()} != expected:
                raise InputError(f"{path}: is not of the same evaluation as {RESULT_FILE}; run `srood eval` again")
            found.append(arrays)
        return found


@dataclass(frozen=True)
class Row:
    """The figures of one run and score, by column of the comparison.

    Attributes:
        specs: what the run itself calls the OOD set of a column
        figures: the metrics on each OOD set that the run was evaluated on
        std: their deviations, where there are any
        missing: why a set could not be had
        mean, mean_std: over the sets that all rows have; empty where there are none
    """

    run: Evaluated
    score: str
    specs: dict[str, str]
    figures: dict[str, Metrics]
    std: dict[str, Metrics]
    missing: dict[str, str]
    mean: Metrics
    mean_std: Metrics | None

    @property
    def accuracy(self) -> float:
        """Share of the ID test images that are classified right."""
        return self.run.result["id_accuracy"]

    @property
    def accuracy_std(self) -> float | None:
        """Its deviation over seeds, of a seed group."""
        return self.run.result.get("id_accuracy_std")


@dataclass(frozen=True)
class Comparison:
    """Rows of runs and scores, and the OOD sets that they are about.

    Attributes:
        columns: every OOD set that any run was evaluated on
        common: those that all rows have, over which the means are
        convention, draws, id: what all runs share, as in eval.json
    """

    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    common: tuple[str, ...]
    convention: dict[str, Any]
    draws: dict[str, Any] | None
    id: dict[str, Any]


def compare(paths: Sequence[Path], scores: Sequence[str] = ("energy",)) -> Comparison:
    """Read evaluations and put them side by side; no forward pass is made.

    Args:
        paths: runs, seed groups or other folders that hold an eval.json, or such files
        scores: names of scores, or ``all`` for those that every run has

    Raises:
        InputError: an evaluation that cannot be read, lacks a score, or may not stand beside the others: another
            convention, TPR, draws or ID set, or other images in an OOD set of the same name.
    """
    runs = _read(paths)
    _check_alike(runs)
    chosen = _choose(runs, scores)
    if len(runs) * len(chosen) < 2:
        raise InputError("nothing to compare: give two or more runs, or two or more scores with --score")
    names = _columns(runs)
    columns = tuple(dict.fromkeys(name for by_spec in names for name in by_spec.values()))
    common = tuple(
        column
        for column in columns
        if all(column in (of_run[spec] for spec in run.result["ood"]) for run, of_run in zip(runs, names, strict=True))
    )
    rows = tuple(_row(run, of_run, score, common) for run, of_run in zip(runs, names, strict=True) for score in chosen)
    first = runs[0].result
    return Comparison(rows, columns, common, first["convention"], first["draws"], first["id"])


def score_pairs(row: Row, column: str) -> list[ScorePair]:
    """The scores behind a row's figures on one OOD set: one pair, or one a seed; none where the set is missing.

    Raises:
        InputError: as `Evaluated.scores`.
    """
    if column not in row.figures:
        return []
    return [(arrays[""], arrays[row.specs[column]]) for arrays in row.run.scores(row.score)]


def _read(paths: Sequence[Path]) -> list[Evaluated]:
    found = []
    files = [path / RESULT_FILE if path.is_dir() else path for path in paths]
    if len({file.resolve() for file in files}) < len(files):
        raise InputError("the same run is given twice; give it once")
    for path, file in zip(paths, files, strict=True):
        if not file.is_file():
            hint = f"run `srood eval {path} --ood ...` first" if path.is_dir() else "check the path"
            raise InputError(f"{path}: holds no {RESULT_FILE}; {hint}" if path.is_dir() else f"{path}: no such file")
        found.append((file, read_result(file)))
    return [Evaluated(name, *entry) for name, entry in zip(_names(files), found, strict=True)]


def _names(files: Sequence[Path]) -> list[str]:
    """Names for tables: that of the folder, its path where two have one name, the file's where two lie in one."""
    folders, paths = [file.resolve().parent.name for file in files], [file.parent for file in files]
    return [
        folder if folders.count(folder) == 1 else str(path if paths.count(path) == 1 else file)
        for folder, path, file in zip(folders, paths, files, strict=True)
    ]


def _check_alike(runs: Sequence[Evaluated]) -> None:
    first = runs[0]

    def refuse(other: Evaluated, what: str, ours: object, theirs: object) -> InputError:
        return InputError(
            f"{first.folder} and {other.folder}: {what} ({ours} and {theirs}); evaluate them alike to compare them"
        )

    fingerprints: dict[str, tuple[Evaluated, str]] = {}
    for run in runs:
        a, b = first.result, run.result
        if a["convention"]["name"] != b["convention"]["name"]:
            raise refuse(run, "differ in --convention", a["convention"]["name"], b["convention"]["name"])
        if a["convention"]["tpr"] != b["convention"]["tpr"]:
            raise refuse(run, "differ in --tpr", a["convention"]["tpr"], b["convention"]["tpr"])
        if a["draws"] != b["draws"]:
            raise refuse(run, "differ in --draws", a["draws"] or "all images", b["draws"] or "all images")
        if a["id"]["spec"] != b["id"]["spec"]:
            raise refuse(run, "are of different ID sets", a["id"]["spec"], b["id"]["spec"])
        sets = {"the ID set": b["id"], **{entry["spec"]: entry for entry in b["ood"].values()}}
        for spec, entry in sets.items():
            other, fingerprint = fingerprints.setdefault(spec, (run, entry["fingerprint"]))
            if fingerprint != entry["fingerprint"]:
                raise InputError(
                    f"{other.folder} and {run.folder}: {entry['spec']} is not the same images in both (fingerprints "
                    f"{fingerprint[:12]} and {entry['fingerprint'][:12]}); evaluate them alike to compare them"
                )


def _choose(runs: Sequence[Evaluated], scores: Sequence[str]) -> list[str]:
    names = [name.strip() for text in scores for name in text.split(",")]
    if "default" in names:
        raise InputError("--score default: stands for scores of `srood eval`; name the scores here, or give all")
    if "all" in names:
        return [score for score in runs[0].result["mean"] if all(score in run.result["mean"] for run in runs)]
    for run in runs:
        for name in names:
            if name not in run.result["mean"]:
                raise InputError(
                    f"--score {name}: {run.folder} was evaluated with {', '.join(run.result['mean'])}; "
                    f"run `srood eval` again with --score {name}"
                )
    return list(dict.fromkeys(names))


def _columns(runs: Sequence[Evaluated]) -> list[dict[str, str]]:
    """For each run, the column of each of its OOD sets: the first name under which any run has it."""
    names: dict[str, str] = {}
    for run in runs:
        for spec, entry in run.result["ood"].items():
            names.setdefault(entry["spec"], spec)
    return [
        {
            spec: names[run.result["ood"][spec]["spec"]] if spec in run.result["ood"] else spec
            for spec in run.result["sets"]
        }
        for run in runs
    ]


def _row(run: Evaluated, columns: dict[str, str], score: str, common: Sequence[str]) -> Row:
    result = run.result
    figures = {columns[spec]: entry["scores"][score] for spec, entry in result["ood"].items()}
    std = {columns[spec]: entry["std"][score] for spec, entry in result["ood"].items() if entry.get("std")}
    missing = {columns[spec]: entry["reason"] for spec, entry in result["missing"].items()}
    if set(figures) == set(common):  # the mean of the evaluation itself
        mean, mean_std = result["mean"][score], (result["mean_std"] or {}).get(score)
    else:
        mean, mean_std = (average([figures[column] for column in common]) if common else {}), None
    specs = {column: spec for spec, column in columns.items()}
    return Row(run, score, specs, figures, std, missing, mean, mean_std)
