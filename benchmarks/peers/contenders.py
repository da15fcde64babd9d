"""Who finds near-duplicates in benchmarks/dedup.py: the command of each, and how its output is read."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers.environments import FOLDER, REQUIREMENTS, Unavailable, python_of
from planted_folder import Pair, pair

from srood.outliers import OutlierSet

HERE = Path(__file__).parent
Scores = dict[Pair, float]  # larger is more alike


@dataclass(frozen=True)
class Contender:
    """`read` gives the pairs of an output folder; `cuts` names the least scores to count pairs from.

    The first cut is the contender's own setting.
    """

    read: Callable[[Path], Scores]
    cuts: dict[str, float]


class Failed(Exception):
    """A contender that gave nothing; the message says why."""


def read_audit(result: Path) -> Scores:
    """pairs.csv of `curate audit`: two images by their keys, a slash before the name, and their similarity."""
    with open(result / "pairs.csv", newline="") as file:
        rows = [(_name(row["key_a"]), _name(row["key_b"]), row["similarity"]) for row in csv.DictReader(file)]
    return {pair(a, b): float(similarity) for a, b, similarity in rows}


def read_fastdup(result: Path) -> Scores:
    """similarity.csv, which numbers the files as atrain_features.dat.csv lists them; its `distance` is a similarity."""
    with open(result / "atrain_features.dat.csv", newline="") as file:
        names = {row["index"]: Path(row["filename"]).name for row in csv.DictReader(file)}
    with open(result / "similarity.csv", newline="") as file:
        return {pair(names[row["from"]], names[row["to"]]): float(row["distance"]) for row in csv.DictReader(file)}


def read_imagededup(result: Path) -> Scores:
    """duplicates.json: by file what repeats it, with the Hamming distance, which is negated here."""
    found = json.loads((result / "duplicates.json").read_text())
    return {pair(name, other): -float(bits) for name, others in found.items() for other, bits in others}


CONTENDERS = {
    "curate audit": Contender(read_audit, {"calibrated threshold": 0.0}),
    "fastdup": Contender(read_fastdup, {"similarity 0.9": 0.9, "similarity 0.96": 0.96}),
    "imagededup": Contender(read_imagededup, {"PHash, distance 10": -10, "distance 4": -4, "distance 0": 0}),
}
BUILD = "curate build"  # finds no list of pairs, but a set without them


def find(name: str, folder: Path, result: Path, cores: int, limit: float, environments: Path = FOLDER) -> Scores:
    """Run a key of CONTENDERS on `folder`; figures.json in `result` is what `measure` says.

    Raises:
        Failed: it cannot be installed, fails, takes longer than `limit` seconds or leaves no output.
    """
    result.mkdir()
    out = result / "out"
    if name in REQUIREMENTS:
        try:
            command = [python_of(name, environments), HERE / f"{name}_pairs.py", folder, out, cores]
        except Unavailable as reason:
            raise Failed(str(reason)) from None
    else:
        command = [sys.executable, "-m", "curate", "audit", folder, "--out", out / "pairs.csv", "--workers", cores]
    measure(command, result, cores, limit)
    try:
        return CONTENDERS[name].read(out)
    except FileNotFoundError as missing:
        raise Failed(f"ended without an error, but did not write {Path(missing.filename).name}") from None


def build(folder: Path, result: Path, cores: int, limit: float, options: list[str]) -> set[str]:
    """Run `curate build` on `folder` with further options; the names of the files whose images it keeps.

    Raises:
        Failed: it fails, or takes longer than `limit` seconds.
    """
    result.mkdir()
    out = result / "set.h5"
    command = [sys.executable, "-m", "curate", "build", "--source", folder, "--out", out, "--workers", cores, *options]
    measure(command, result, cores, limit)
    return {_name(key.decode()) for key in OutlierSet.open(out).read("key")}


def measure(command: list[Any], result: Path, cores: int, limit: float) -> None:
    """Run a command; its seconds and peak memory go to figures.json in `result`, what it prints to log.txt.

    Raises:
        Failed: it exits with an error or is stopped after `limit` seconds.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(cores), "SENTRY_OPT_OUT": "1"}
    if command[0] != sys.executable:  # what is found for this project's Python is not for a peer's
        environment.pop("PYTHONPATH", None)
    figures, log = result / "figures.json", result / "log.txt"
    whole = [sys.executable, HERE / "measured.py", figures, limit, *command]
    with open(log, "wb") as file:
        subprocess.run([str(part) for part in whole], env=environment, stdout=file, stderr=file, check=True)
    code = json.loads(figures.read_text())["code"]
    if code is None:
        raise Failed(f"stopped after {limit:.0f} s, the time limit")
    if code:
        last = " ".join(log.read_text(errors="replace").split()[-60:])
        raise Failed(f"exit code {code}: {last}")


def _name(key: str) -> str:
    return key.rpartition("/")[2]
