"""An eval.json read back, with everything that a comparison reads of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from srood.errors import InputError
from train.evaluation.measures import Metrics, metric_names


class _Convention(BaseModel):
    name: str
    tpr: float
    metric: str


class _Draws(BaseModel):
    number: int
    size: int
    seed: int


class _Deviation(BaseModel):
    over: str
    number: int
    kind: str


class _Set(BaseModel):
    spec: str
    fingerprint: str
    images: int


class _OodSet(_Set):
    scores: dict[str, Metrics]
    std: dict[str, Metrics] | None = None


class _Missing(BaseModel):
    reason: str


class _Result(BaseModel):
    convention: _Convention
    draws: _Draws | None
    deviation: _Deviation | None
    sets: list[str]
    ood: dict[str, _OodSet]
    missing: dict[str, _Missing]
    mean: dict[str, Metrics]
    mean_std: dict[str, Metrics] | None
    mean_of: dict[str, int]
    id: _Set
    id_accuracy: float
    id_accuracy_std: float | None = None
    runs: dict[str, Any] = {}


def read_result(file: Path) -> dict[str, Any]:
    """What an eval.json holds.

    Raises:
        InputError: it cannot be read, or lacks something that a comparison needs; the message names the key.
    """
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read ({error}); run `srood eval` again") from error
    problem = _problem(result)
    if problem:
        raise InputError(f"{file}: {problem}; it is of another version: run `srood eval` again")
    return result


def _problem(result: Any) -> str:
    """What keeps a document from being an evaluation; empty where nothing does."""
    try:
        read = _Result.model_validate(result)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if not key:
            return "is no evaluation"
        return f"has no '{key}'" if first["type"] == "missing" else f"'{key}' cannot be read ({first['msg']})"
    metrics = [read.convention.metric, *metric_names(read.convention.tpr)[1:]]
    if read.convention.metric not in result["convention"]:
        return f"has no 'convention.{read.convention.metric}'"
    for name, values in [
        ("mean", read.mean),
        *((f"ood.{spec}.scores", entry.scores) for spec, entry in read.ood.items()),
    ]:
        for score in read.mean:
            if not set(metrics) <= set(values.get(score, ())):
                return f"has no '{name}.{score}' with {', '.join(metrics)}"
    return ""
