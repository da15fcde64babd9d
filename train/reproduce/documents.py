"""The results of an experiment as one JSON document, from which its tables, plots and pages are made.

results/reproduce/TABLE-PROFILE.json holds the settings, the published values, each cell for each seed with its figures,
commands, data fingerprints and seconds, and the environments that they were made in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from srood.errors import InputError
from srood.files import write_text
from train.reproduce import made_sets
from train.reproduce.cells import Cell
from train.reproduce.experiments import Experiment

FOLDER = Path("results/reproduce")
DECIMALS = 6

Status = Literal["done", "missing", "failed", "not run"]


class CellResult(BaseModel):
    """One cell for one seed, as a document holds it. `ood` has shares in [0, 1] by OOD set and metric."""

    model_config = ConfigDict(extra="forbid")

    name: str
    protocol: str
    id_set: str
    network: str
    method: str
    seed: int
    status: Status
    reason: str = ""
    fingerprint: str = ""
    id_accuracy: float | None = None
    ood: dict[str, dict[str, float]] = {}
    missing: dict[str, str] = {}
    commands: list[str] = []
    seconds: dict[str, float] = {}
    data: dict[str, Any] = {}
    weights: str = ""
    environment: str = ""


class Document(BaseModel):
    """The results of an experiment under a profile; `steps` where trainings were cut short."""

    model_config = ConfigDict(extra="forbid")

    profile: str
    steps: int | None
    experiment: Experiment
    cells: list[CellResult]
    environments: dict[str, dict[str, Any]] = {}

    @property
    def command(self) -> str:
        """What makes the document."""
        return f"srood reproduce {self.experiment.name} --profile {self.profile}" + (
            f" --steps {self.steps}" if self.steps else ""
        )


def file_name(name: str, profile: str, steps: int | None = None) -> str:
    """Of a document; one of shortened trainings has a name of its own."""
    return f"{name}-{profile}" + (f"-{steps}-steps" if steps else "") + ".json"


def read_document(path: Path) -> Document:
    """A document.

    Raises:
        InputError: it cannot be read, or is of another version.
    """
    try:
        return Document.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        reason = (
            f"{error.errors()[0]['loc']}: {error.errors()[0]['msg']}" if isinstance(error, ValidationError) else error
        )
        raise InputError(f"{path}: cannot be read ({reason}); remove it and run `srood reproduce` again") from error


def write_document(path: Path, document: Document) -> None:
    """Write a document whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document.model_dump(mode="json", exclude_defaults=True), indent=1, ensure_ascii=False)
    write_text(path, text + "\n")


def describe(
    experiment: Experiment,
    profile: str,
    steps: int | None,
    cells: Sequence[Cell],
    outcomes: Callable[[Cell], dict[str, Any] | None],
    commands: Callable[[Cell], list[str]],
    failed: dict[str, str],
    before: Document | None,
    others: Sequence[Document],
) -> Document:
    """A document of what there is of each cell.

    Args:
        outcomes: what a finished cell has to say (`train.reproduce.running.outcome`), None for others
        commands: the commands of a cell
        failed: reasons by the fingerprint of an evaluation
        before: an earlier document of the experiment: what it has of the same cell stands where nothing newer is there.
            A cell whose images cannot all be had here cannot be told from others; it stands if the experiment is the
            same.
        others: documents of other experiments, which may have the same cells
    """
    kept = _finished([before, *others] if before else others)
    named: dict[str, str] = {}
    if before is not None and before.experiment == experiment:
        named = {old.name: old.fingerprint for old in before.cells if old.status == "done"}
    environments: dict[str, dict[str, Any]] = {}
    results = []
    for cell in cells:
        fields: dict[str, Any] = {
            **{name: getattr(cell, name) for name in ("name", "protocol", "network", "method", "seed")},
            "id_set": made_sets.shown(cell.id_set),
            "missing": {made_sets.shown(name): reason for name, reason in cell.missing.items()},
            "fingerprint": cell.evaluation.fingerprint if cell.evaluation else "",
            "commands": commands(cell),
        }
        found, score = outcomes(cell), experiment.methods[cell.method].score
        fingerprint = fields["fingerprint"]
        if cell.reason or cell.missing:
            fingerprint = named.get(cell.name, fingerprint)
        if found is not None:
            fields |= _figures(found, score)
            fields["environment"] = _short(found["environment"])
            environments[fields["environment"]] = found["environment"]
            result = CellResult(status="done", **fields)
        elif fields["fingerprint"] in failed:
            result = CellResult(status="failed", reason=failed[fields["fingerprint"]], **fields)
        elif (fingerprint, score) in kept:
            old, environment = kept[fingerprint, score]
            result = old.model_copy(update={name: fields[name] for name in ("name", "method")})
            environments[old.environment] = environment
        elif cell.reason:
            result = CellResult(status="missing", reason=cell.reason, **fields)
        else:
            result = CellResult(status="not run", **fields)
        results.append(result)
    return Document(profile=profile, steps=steps, experiment=experiment, cells=results, environments=environments)


def _finished(documents: Sequence[Document]) -> dict[tuple[str, str], tuple[CellResult, dict[str, Any]]]:
    """Finished cells and their environments, by fingerprint and score: one evaluation may have several scores."""
    found: dict[tuple[str, str], tuple[CellResult, dict[str, Any]]] = {}
    for document in documents:
        for cell in document.cells:
            if cell.status == "done":
                key = (cell.fingerprint, document.experiment.methods[cell.method].score)
                found.setdefault(key, (cell, document.environments[cell.environment]))
    return found


def _figures(found: dict[str, Any], score: str) -> dict[str, Any]:
    by_set = found["scores"][score].items()
    return {
        "id_accuracy": round(found["id_accuracy"], DECIMALS),
        "ood": {
            made_sets.shown(name): {metric: round(value, DECIMALS) for metric, value in metrics.items()}
            for name, metrics in by_set
        },
        **{name: found[name] for name in ("seconds", "weights")},
        "data": {
            **found["data"],
            "ood": {made_sets.shown(name): entry for name, entry in found["data"]["ood"].items()},
        },
    }


def _short(environment: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:8]
