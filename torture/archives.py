"""Hostile archives: what comes out of zip, tar, Parquet, npy and the like that were made to harm."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from srood.outliers import OutlierSet
from torture import hostile_tables, hostile_tar, hostile_zip
from torture.forked import forked
from torture.hostile import (
    ANY,
    REFUSED,
    Case,
    Outside,
    bounds,
    judged,
    pictures,
    pixel_hashes,
    png,
    read_cases,
    refusal,
    trespasses,
    write_id_set,
)
from torture.trial import Effort, Trial

BUILD = "--size 12 --workers 1 --exclude-labels none --clusters 1 --quality none --id-recall 0 --out set.h5"


def hostile_archives(effort: Effort) -> Iterator[Trial]:
    """Read every case, and in full have `curate build` make a set of each."""
    good = pictures(3, effort.seed)
    cases = [case for kind in (hostile_zip, hostile_tar, hostile_tables) for case in kind.cases(good, effort.quick)]
    for number in range(effort.times(300, 12)):
        made = partial(hostile_tables.mutated_parquet, good=good, seed=effort.seed * 10_000 + number)
        cases.append(Case("Parquet: footer and page headers changed at random", made, ANY))
    yield from read_cases(effort, cases, good)
    if not effort.quick:
        yield from _built(effort, cases)


def _built(effort: Effort, cases: list[Case]) -> Iterator[Trial]:
    """`curate build` on a corpus of the case and eight good images."""
    corpus, ident = pictures(8, effort.seed + 1), pictures(40, effort.seed + 2)
    write_id_set(effort.folder / "id", ident)
    for number, case in enumerate(cases):
        if case.rows == ANY:
            continue
        place = effort.folder / f"build-{number}"
        (place / "given").mkdir(parents=True)
        outside = Outside.make(place / "outside")
        (place / "given" / "id").symlink_to(effort.folder / "id")
        (place / "given" / "good").mkdir()
        for row, image in enumerate(corpus):
            (place / "given" / "good" / f"{row}.png").write_bytes(png(image))
        spec = case.make(place / "given")
        words = ["curate", "build", "--source", "good", "--source", spec, "--id", "id", *BUILD.split()]
        watched = forked(effort.quick).run(*words, cwd=place / "given", limit=case.seconds * 10)
        problems = bounds(watched, seconds=case.seconds * 2) + trespasses(watched, effort.folder, outside)
        outcome = REFUSED
        if case.rows is None:
            problems += refusal(watched, [spec.name])
        elif watched.ended.code:
            problems.append(f"exit code {watched.ended.code}: {watched.ended.err[-300:]!r}")
        else:
            outcome = "a set of the good images alone"
            problems += _wrong_rows(place / "given" / "set.h5", [*corpus, *pictures(3, effort.seed)], 8 + case.rows)
        fault = f"{case.fault.partition(':')[0]}: any of these, to `curate build`"
        yield judged(fault, problems, outcome, f"{case.fault}, {spec}")


def _wrong_rows(path: Path, known: list[np.ndarray], count: int) -> list[str]:
    found = OutlierSet.open(path).read("sha256").tolist()
    good = {sha.encode() for sha in pixel_hashes(known)}
    strange = sum(sha not in good for sha in found)
    wrong = [f"{strange} rows that are not of the corpus"] * bool(strange)
    return wrong + [f"{len(found)} rows instead of {min(count, 12)}"] * (len(found) != min(count, 12))
