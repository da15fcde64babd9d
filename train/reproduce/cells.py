"""The cells of an experiment, and the trainings that they share.

A cell is one method on one network, ID set and seed under one protocol. Its training and its evaluation are named by
fingerprints of everything that they depend on, so that what is finished is found again, by any experiment.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from srood.errors import InputError
from srood.hashes import file_sha256
from train.config import AnyConfig, PretrainConfig, TuneConfig, config_values, make_config, paper_protocol
from train.reproduce import made_sets
from train.reproduce.experiments import Experiment, Method
from train.reproduce.inputs import Inputs
from train.reproduce.outlier_recipes import OutlierPlan, plan_outliers

MACHINE = ("device", "devices", "compile", "tensorboard", "checkpoint_every")  # settings that a result is not named by
PLACES = ("id", "checkpoint", "outliers")  # paths, which stand in a fingerprint by what is there


@dataclass(frozen=True)
class Run:
    """A training, or weights that are given.

    Attributes:
        folder: of the run; of given weights, where their evaluations go
        weights: the file it ends with
        fingerprint: of all that decides those weights
        config: None for given weights
        start: what tuning starts from
        made: names of made sets that it needs, with the ID set that they are made for
    """

    folder: Path
    weights: Path
    fingerprint: str
    config: AnyConfig | None = None
    start: Run | None = None
    outliers: OutlierPlan | None = None
    made: tuple[tuple[str, str], ...] = ()

    @property
    def subject(self) -> Path:
        """What `srood eval` is given."""
        return self.weights if self.config is None else self.folder


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of a run: on which OOD sets, by which scores, and how.

    `id_spec` is the place of the ID set, and `ood` has places by name.
    """

    folder: Path
    fingerprint: str
    id_spec: str
    ood: dict[str, str]
    scores: tuple[str, ...]
    protocol: str | None
    convention: str | None


@dataclass(frozen=True)
class Cell:
    """One cell for one seed; `reason` says why it has neither run nor evaluation. `missing` are OOD sets."""

    protocol: str
    id_set: str
    network: str
    method: str
    seed: int
    run: Run | None = None
    evaluation: Evaluation | None = None
    missing: dict[str, str] = field(default_factory=dict)
    reason: str = ""

    @property
    def name(self) -> str:
        """What `--only` chooses by."""
        return f"{self.protocol}/{made_sets.shown(self.id_set)}/{self.network}/{self.method}/seed-{self.seed}"


@dataclass(frozen=True)
class Choices:
    """What the command line settles for all cells."""

    out: Path = Path("runs/reproduce")
    checkpoint: Path | None = None
    steps: int | None = None
    device: str = "auto"


def plan_cells(experiment: Experiment, choices: Choices) -> list[Cell]:
    """All cells in the order of the table, each with its training and evaluation or the reason why it has none.

    Raises:
        InputError: a setting of the experiment or a choice that cannot be used.
    """
    if choices.checkpoint is not None and len(experiment.networks) * len(experiment.id_sets) > 1:
        raise InputError(
            f"--checkpoint {choices.checkpoint}: {experiment.name} has several networks or ID sets under this profile"
        )
    inputs = Inputs(choices.out / "inputs")
    cells: list[Cell] = []
    for id_set in experiment.id_sets:
        reason, found, missing = "", dict[str, str](), dict[str, str]()
        try:
            inputs.id_identity(id_set)
            found, missing = inputs.ood(experiment.ood, id_set)
            if not found:
                reason = f"none of its OOD sets can be had; {next(iter(missing.values()))}"
        except InputError as error:
            reason = str(error)
        for protocol in experiment.protocols:
            for network in experiment.networks:
                for name in experiment.methods:
                    for seed in experiment.seeds:
                        cell = Cell(protocol, id_set, network, name, seed, missing=missing, reason=reason)
                        cells.append(cell if reason else _with_run(cell, experiment, choices, inputs, found))
    return _evaluated_once(_of_one_seed(cells), experiment, inputs)


def chosen(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """The cells that `--only` names: each text is parts of names joined by ``/``, like ``sr`` or ``cifar10/sr/seed-0``.

    Raises:
        InputError: a text names no cell.
    """
    for text in only:
        if not any(_named(cell, text) for cell in cells):
            parts = dict.fromkeys(part for cell in cells for part in cell.name.split("/"))
            raise InputError(f"--only {text}: names no cell; join any of {', '.join(parts)} by /")
    return [cell for cell in cells if not only or any(_named(cell, text) for text in only)]


def _named(cell: Cell, text: str) -> bool:
    return set(text.split("/")) <= set(cell.name.split("/"))


# ---- trainings ------------------------------------------------------------------------------------------------------


def _with_run(cell: Cell, experiment: Experiment, choices: Choices, inputs: Inputs, ood: dict[str, str]) -> Cell:
    method = experiment.methods[cell.method]
    if method.unavailable:
        return replace(cell, reason=method.unavailable)
    start = _start(cell, experiment, choices, inputs)
    if method.train is None:
        run = start
    else:
        try:
            run = _tuned(cell, method, experiment, choices, inputs, ood, start)
        except InputError as error:
            if method.outliers is None:  # a setting, not an outlier set that cannot be had
                raise
            return replace(cell, reason=str(error))
    paper = cell.protocol == "paper"
    how = ("paper", None) if paper else (None, experiment.convention)
    evaluation = Evaluation(run.folder, "", inputs.place(cell.id_set, cell.id_set), ood, (method.score,), *how)
    return replace(cell, run=run, evaluation=evaluation)


def _start(cell: Cell, experiment: Experiment, choices: Choices, inputs: Inputs) -> Run:
    weights = choices.checkpoint or _weights_at_hand(cell, experiment)
    label = f"{made_sets.shown(cell.id_set)}-{cell.network}"
    if weights is not None:
        if not weights.is_file():
            raise InputError(f"--checkpoint {weights}: no such weights file; check the path")
        fingerprint = file_sha256(weights)
        return Run(choices.out / f"{label}-weights-{fingerprint[:10]}", weights, fingerprint)
    settings = {**_common(cell, experiment, choices, inputs), **experiment.pretrain}
    config = make_config(PretrainConfig, _cut(settings, choices.steps))
    return _run(config, label, cell, choices, inputs)


def _weights_at_hand(cell: Cell, experiment: Experiment) -> Path | None:
    root = os.environ.get("SROOD_DATA")
    if not experiment.checkpoint or not root:
        return None
    path = Path(root) / experiment.checkpoint.format(network=cell.network, id_set=cell.id_set)
    return path if path.is_file() else None


def _tuned(
    cell: Cell,
    method: Method,
    experiment: Experiment,
    choices: Choices,
    inputs: Inputs,
    ood: dict[str, str],
    start: Run,
) -> Run:
    outliers = None
    if method.outliers is not None:
        outliers = plan_outliers(
            method.outliers,
            experiment.outliers[method.outliers],
            inputs,
            id_set=cell.id_set,
            image_size=experiment.image_size,
            seed=cell.seed,
            ood=ood,
            start=(start.weights, start.fingerprint),
        )
    settings = {**_common(cell, experiment, choices, inputs), **experiment.tune, **(method.train or {})}
    settings |= {"checkpoint": start.weights} | ({"outliers": (str(outliers.path),)} if outliers else {})
    settings = _cut(settings, choices.steps)
    if cell.protocol == "paper":
        settings = {**paper_protocol(make_config(TuneConfig, settings).workflow), **settings}
    config = make_config(TuneConfig, settings)
    label = f"{made_sets.shown(cell.id_set)}-{cell.network}"
    return _run(config, label, cell, choices, inputs, start, outliers)


def _common(cell: Cell, experiment: Experiment, choices: Choices, inputs: Inputs) -> dict[str, Any]:
    shared = {"id": inputs.place(cell.id_set, cell.id_set), "model": cell.network, "seed": cell.seed}
    sized = {} if experiment.image_size == 32 else {"image_size": experiment.image_size}
    return shared | sized | ({} if choices.device == "auto" else {"device": choices.device})


def _cut(settings: dict[str, Any], steps: int | None) -> dict[str, Any]:
    """Settings of a training of no more than so many steps."""
    return settings if steps is None else {**settings, "max_steps": min(settings.get("max_steps", steps), steps)}


def _run(
    config: AnyConfig,
    label: str,
    cell: Cell,
    choices: Choices,
    inputs: Inputs,
    start: Run | None = None,
    outliers: OutlierPlan | None = None,
) -> Run:
    values = {name: value for name, value in config_values(config).items() if name not in (*MACHINE, *PLACES)}
    depends = {
        "config": values,
        "id": inputs.id_identity(cell.id_set),
        "start": start and start.fingerprint,
        "outliers": outliers and outliers.fingerprint,
    }
    fingerprint = _hash(depends)
    folder = choices.out / f"{label}-{config.workflow}-s{cell.seed}-{fingerprint[:10]}"
    made = [(cell.id_set, cell.id_set)] if made_sets.is_made(cell.id_set) else []
    made += [(name, cell.id_set) for name in (outliers.made if outliers else ())]
    return Run(folder, folder / "model.safetensors", fingerprint, config, start, outliers, tuple(made))


# ---- evaluations ----------------------------------------------------------------------------------------------------


def _of_one_seed(cells: Sequence[Cell]) -> list[Cell]:
    """Without the further seeds of given weights that are not tuned: they are the same."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    for cell in cells:
        if cell.run is not None and cell.run.config is None:
            key = (cell.protocol, cell.method, cell.run.fingerprint)
            if key in seen:
                continue
            seen.add(key)
        kept.append(cell)
    return kept


def _evaluated_once(cells: Sequence[Cell], experiment: Experiment, inputs: Inputs) -> list[Cell]:
    """Cells of the same run and protocol share one evaluation, with the scores of all."""
    scores: dict[tuple[str, str], dict[str, None]] = {}
    for cell in cells:
        if cell.run is not None:
            scores.setdefault((cell.protocol, cell.run.fingerprint), {})[experiment.methods[cell.method].score] = None
    done = []
    for cell in cells:
        run, evaluation = cell.run, cell.evaluation
        if run is not None and evaluation is not None:
            wanted = tuple(scores[cell.protocol, run.fingerprint])
            depends = {
                "run": run.fingerprint,
                "id": inputs.id_identity(cell.id_set),
                "ood": {name: inputs.identity(name, cell.id_set) for name in evaluation.ood},
                "scores": wanted,
                "how": [evaluation.protocol, evaluation.convention],
            }
            fingerprint = _hash(depends)
            folder = run.folder / f"eval-{cell.protocol}-{fingerprint[:10]}"
            cell = replace(cell, evaluation=replace(evaluation, folder=folder, fingerprint=fingerprint, scores=wanted))
        done.append(cell)
    return done


def _hash(depends: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
