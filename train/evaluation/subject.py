"""What is evaluated: a classifier with its weights file, what that says of itself, and the ID set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from srood.errors import InputError
from srood.models import Classifier
from srood.models.weights import WeightsInfo, load_model
from train import runs
from train.config import read_config
from train.seeds import is_group, read_seeds


@dataclass(frozen=True)
class Subject:
    """A classifier to evaluate: where its weights are, what they are, and the ID set it was trained on."""

    weights: Path
    classifier: Classifier
    info: WeightsInfo
    model: str
    id_set: str

    @property
    def image_size(self) -> int:
        """Side of the images that it takes, in pixels."""
        return self.info.image_size or 32


def open_subject(path: Path, model: str | None = None, id_set: str | None = None) -> Subject:
    """Load the classifier of a run folder or a weights file.

    Raises:
        InputError: no such path, an unfinished run, weights of another architecture, or a weights file that does not
            say its architecture or ID set where they are not given either.
    """
    weights = runs.find_weights(path)
    if path.is_dir():
        config = read_config(path)
        if model not in (None, config.model) or id_set not in (None, config.id):
            raise InputError(f"{path}: is a run of {config.model} on {config.id}; leave out --model and --id")
        model, id_set = config.model, config.id
    classifier, info = load_model(weights, model)
    model, id_set = model or info.arch, id_set or info.dataset
    if model is None or id_set is None:
        raise InputError(f"{path}: does not say what it was trained on; give --id")
    return Subject(weights, classifier, info, model, id_set)


def open_subjects(path: Path, model: str | None = None, id_set: str | None = None) -> dict[str, Subject]:
    """The classifiers of a seed group by the name of their run, or the one of a run or weights file, named ``""``.

    A seed group is a folder whose ``seeds.json`` lists runs that differ in their seed alone.

    Raises:
        InputError: as `open_subject`; a seed group that lists no runs, or runs of different kinds.
    """
    if not is_group(path):
        return {"": open_subject(path, model, id_set)}
    names = [str(name) for name in read_seeds(path)["runs"]]
    if len(names) < 2:
        raise InputError(f"{path}: holds {len(names)} runs; two or more are needed for a deviation over seeds")
    subjects = {name: open_subject(path / name, model, id_set) for name in names}
    kinds = {(s.model, s.id_set, s.image_size): name for name, s in subjects.items()}
    if len(kinds) > 1:
        (first, a), (second, b) = list(kinds.items())[:2]
        raise InputError(
            f"{path}: holds different runs: {a} is of {first[0]} on {first[1]} at {first[2]} pixels, "
            f"{b} of {second[0]} on {second[1]} at {second[2]}; evaluate them one by one"
        )
    return subjects
