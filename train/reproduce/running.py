"""Making what cells need: made sets, outlier sets, trainings and evaluations, each of them once."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srood.errors import InputError
from srood.files import write_text
from train import runs
from train.config import PretrainConfig, TuneConfig
from train.evaluation.evaluate import evaluate
from train.evaluation.read_results import read_result
from train.evaluation.score_files import RESULT_FILE
from train.pretrain import pretrain
from train.reproduce import made_sets
from train.reproduce.cells import Cell, Run
from train.reproduce.environment import environment
from train.reproduce.inputs import Inputs
from train.reproduce.outlier_recipes import make_outliers
from train.summary import summarise
from train.tune import resume, tune

CELL_FILE = "cell.json"  # in the folder of an evaluation, written last: an evaluation that has it is finished


@dataclass
class Runner:
    """Makes cells one after the other; what failed once is not tried again.

    Attributes:
        inputs: where made sets go
        device: for passes and trainings
        failed: reasons by the fingerprint of a training
    """

    inputs: Inputs
    device: str = "auto"
    failed: dict[str, str] = field(default_factory=dict)

    def make(self, cell: Cell) -> None:
        """Train and evaluate a cell, or go on where that was interrupted; a finished one is left as it is.

        Raises:
            InputError: it cannot be made.
            Stopped: a training was told to stop; its state is saved.
        """
        assert cell.run is not None and cell.evaluation is not None
        if is_finished(cell):
            return
        self.make_inputs(cell)
        self.train(cell.run)
        evaluation, given = cell.evaluation, cell.run.config is None
        start = time.monotonic()
        evaluate(
            cell.run.subject,
            list(evaluation.ood.values()),
            model=cell.network if given else None,
            id_set=evaluation.id_spec if given else None,
            out=evaluation.folder,
            protocol=evaluation.protocol,
            convention=evaluation.convention,
            scores=evaluation.scores,
            device=self.device,
            plots=False,
        )
        record = {
            "fingerprint": evaluation.fingerprint,
            "seconds": {**seconds_of(cell.run), "evaluation": time.monotonic() - start},
            "environment": environment(self.device),
        }
        write_text(evaluation.folder / CELL_FILE, json.dumps(record, indent=2) + "\n")

    def make_inputs(self, cell: Cell) -> None:
        """Make the sets that an experiment makes for itself, and the outlier set of a cell.

        Raises:
            InputError: one cannot be made.
        """
        assert cell.run is not None and cell.evaluation is not None
        ood = [(name, cell.id_set) for name in cell.evaluation.ood if made_sets.is_made(name)]
        for name, id_set in (*cell.run.made, *ood):
            made_sets.make(name, self.inputs.folder, id_set)

    def train(self, run: Run) -> None:
        """Finish a training, its start and its outlier set first.

        Raises:
            InputError: as `pretrain`, `tune` and `make_outliers`; also where it failed before.
            Stopped: it was told to stop.
        """
        if run.fingerprint in self.failed:
            raise InputError(self.failed[run.fingerprint])
        try:
            self._train(run)
        except InputError as error:
            self.failed[run.fingerprint] = str(error)
            raise

    def _train(self, run: Run) -> None:
        if run.config is None or runs.is_finished(run.folder):
            return
        if run.start is not None:
            self.train(run.start)
        if run.outliers is not None:
            make_outliers(run.outliers)
        if any((run.folder / "checkpoints").glob("step-*")) and (run.folder / runs.CONFIG_FILE).is_file():
            resume(run.folder, None if self.device == "auto" else self.device)
            return
        shutil.rmtree(run.folder, ignore_errors=True)  # stopped before it had a checkpoint
        if isinstance(run.config, TuneConfig):
            tune(run.config, run.folder)
        else:
            assert isinstance(run.config, PretrainConfig)
            pretrain(run.config, run.folder)


def is_finished(cell: Cell) -> bool:
    """Whether the evaluation of a cell is there, whole and of this fingerprint."""
    if cell.evaluation is None:
        return False
    record = _record(cell.evaluation.folder)
    return record is not None and record["fingerprint"] == cell.evaluation.fingerprint


def outcome(cell: Cell) -> dict[str, Any] | None:
    """What a finished cell has to say (shares in [0, 1]), or None where it is not finished."""
    if cell.evaluation is None or cell.run is None or not is_finished(cell):
        return None
    record = _record(cell.evaluation.folder)
    assert record is not None
    result = read_result(cell.evaluation.folder / RESULT_FILE)
    # in the order asked for; the places may be others, where the folder was moved
    by_set = dict(zip(cell.evaluation.ood, result["ood"].values(), strict=True))
    outliers = {}
    if cell.run.outliers is not None:
        entries = runs.read_record(cell.run.folder)["outliers"]
        outliers = {"outliers": [{key: entry[key] for key in ("fingerprint", "rows")} for entry in entries]}
    return {
        "id_accuracy": result["id_accuracy"],
        "scores": {
            score: {name: entry["scores"][score] for name, entry in by_set.items()} for score in cell.evaluation.scores
        },
        "seconds": {name: round(value, 1) for name, value in record["seconds"].items()},
        "environment": record["environment"],
        "data": {
            "id": {key: result["id"][key] for key in ("fingerprint", "images")},
            "ood": {name: {key: entry[key] for key in ("fingerprint", "images")} for name, entry in by_set.items()},
            **outliers,
        },
        "weights": result["weights"]["sha256"],
        "convention": result["convention"]["name"],
    }


def seconds_of(run: Run) -> dict[str, float]:
    """Seconds that the trainings of a run took, from their logs: they count what an interruption did not lose."""
    found: dict[str, float] = {}
    if run.start is not None:
        found |= seconds_of(run.start)
    if run.config is not None:
        found["pretraining" if run.config.workflow == "pretrain" else "tuning"] = summarise(run.folder)["seconds"]
    return found


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / CELL_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / CELL_FILE}: cannot be read ({error}); remove {folder} and start again") from error
