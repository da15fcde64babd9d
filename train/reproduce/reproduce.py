"""`srood reproduce`: the cells of an experiment made one after the other, and what came out written down."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from srood.errors import InputError
from srood.files import check_folder, write_text
from train.config import TuneConfig
from train.reporting import say
from train.reproduce import documents, tables
from train.reproduce.cells import Cell, Choices, Run, chosen, plan_cells
from train.reproduce.command_lines import commands_of
from train.reproduce.documents import Document
from train.reproduce.experiments import PROFILES, Experiment, load, names
from train.reproduce.inputs import Inputs
from train.reproduce.running import Runner, is_finished, outcome

DIGITS_IMAGES = 1_348  # of a set that has still to be made
EVALUATION_COST = 8_000  # an evaluation in images of training, about: passes over some 25,000 images


@dataclass(frozen=True)
class Planned:
    """An experiment under a profile, with its cells and those that were chosen."""

    experiment: Experiment
    profile: str
    choices: Choices
    cells: tuple[Cell, ...]
    chosen: tuple[Cell, ...]


def plan(name: str, profile: str, choices: Choices, only: Sequence[str] = ()) -> Planned:
    """Read an experiment and settle its cells; nothing is made.

    Raises:
        InputError: an experiment, profile or choice that cannot be used.
    """
    experiment = load(name, profile)
    cells = plan_cells(experiment, choices)
    return Planned(experiment, profile, choices, tuple(cells), tuple(chosen(cells, only)))


def run(planned: Planned, results: Path = documents.FOLDER) -> Document:
    """Make the chosen cells, and write down what there is of all: JSON and Markdown, after each cell.

    A cell that cannot be made is said and left; the rest goes on.

    Returns:
        the document; cells that failed have the status ``failed``.

    Raises:
        InputError: `results` cannot be written to.
        Stopped: a training was told to stop; the same call goes on.
    """
    check_folder(results, "--results ")
    check_folder(planned.choices.out, "--out ")
    runner = Runner(Inputs(planned.choices.out / "inputs"), planned.choices.device)
    failed: dict[str, str] = {}
    wanted = [cell for cell in planned.chosen if cell.run is not None and not is_finished(cell)]
    left = list({_fingerprint(cell): cell for cell in reversed(wanted)}.values())[::-1]  # cells may share an evaluation
    say(f"{planned.experiment.name}, profile {planned.profile}: {_counted(planned)}")
    path = results_file(planned, results)
    before = _before(path)
    if before is not None and before.experiment == planned.experiment and not any(cell.run for cell in planned.cells):
        say(f"nothing of it can be had here ({planned.cells[0].reason}); {path} stays as it is")
        return before
    others = [documents.read_document(other) for other in _documents_in(results) if other != path]
    document = _written(planned, path, others, failed)
    started, worth, done = time.monotonic(), [_cost(cell, runner.inputs) for cell in left], 0.0
    for number, cell in enumerate(left):
        took = time.monotonic() - started
        rest = f"; about {took / done * (sum(worth) - done) / 60:.0f} min left" if done else ""
        say(f"cell {number + 1} of {len(left)}: {cell.name}{rest}")
        try:
            runner.make(cell)
        except InputError as error:
            failed[_fingerprint(cell)] = str(error)
            say(f"{cell.name}: {error}")
        done += worth[number]
        document = _written(planned, path, others, failed)
    return document


def make_inputs(planned: Planned) -> list[Path]:
    """Make the sets that the chosen cells need and no other command makes.

    Returns:
        the folders they are in.

    Raises:
        InputError: one cannot be made.
    """
    from train.reproduce.outlier_recipes import make_outliers

    runner = Runner(Inputs(planned.choices.out / "inputs"))
    for cell in planned.chosen:
        if cell.run is not None:
            runner.make_inputs(cell)
            if cell.run.outliers is not None and not cell.run.outliers.curated:
                make_outliers(cell.run.outliers)
    return [runner.inputs.folder]


def command_line(planned: Planned) -> str:
    """The command that makes the inputs of an experiment."""
    words = ["srood", "reproduce", planned.experiment.name, "--profile", planned.profile]
    if planned.choices.out != Choices().out:
        words += ["--out", str(planned.choices.out)]
    return shlex.join([*words, "--inputs"])


def results_file(planned: Planned, results: Path) -> Path:
    """The document of an experiment."""
    return results / documents.file_name(planned.experiment.name, planned.profile, planned.choices.steps)


def _documents_in(results: Path) -> list[Path]:
    """The documents of a folder, which may hold other files of JSON too."""
    patterns = [documents.file_name(name, f"{profile}*") for name in names() for profile in PROFILES]
    return sorted(path for pattern in patterns for path in results.glob(pattern))


def _before(path: Path) -> Document | None:
    return documents.read_document(path) if path.exists() else None


def _written(planned: Planned, path: Path, others: Sequence[Document], failed: dict[str, str]) -> Document:
    inputs = command_line(planned)
    document = documents.describe(
        planned.experiment,
        planned.profile,
        planned.choices.steps,
        planned.cells,
        outcome,
        lambda cell: commands_of(cell, inputs),
        failed,
        _before(path),  # another process may have written it since
        others,
    )
    documents.write_document(path, document)
    write_text(path.with_suffix(".md"), tables.markdown(document))
    return document


def _counted(planned: Planned) -> str:
    without = sum(cell.run is None for cell in planned.chosen)
    finished = sum(is_finished(cell) for cell in planned.chosen)
    count = len(planned.chosen)
    return f"{count} cells: {finished} finished, {count - finished - without} to make, {without} that cannot be had"


def _fingerprint(cell: Cell) -> str:
    return cell.evaluation.fingerprint if cell.evaluation else ""


def _cost(cell: Cell, inputs: Inputs) -> float:
    """Images that a cell sends through its network in training and, at their share of the cost, in evaluation."""
    assert cell.run is not None
    rows = inputs.id_rows(cell.id_set) or DIGITS_IMAGES
    return _images(cell.run, rows) + EVALUATION_COST


def _images(run: Run, rows: int) -> float:
    config = run.config
    if config is None or (run.folder / "model.safetensors").is_file():
        return 0.0
    steps = config.max_steps or config.epochs * -(-rows // config.batch_size)
    beside = config.outlier_batch_size if isinstance(config, TuneConfig) and config.outliers else 0
    before = _images(run.start, rows) if run.start is not None else 0.0
    return steps * (config.batch_size + beside) + before
