"""What an experiment is: one YAML file of manifests/experiments, with profiles as changes to it.

A profile changes the document key by key: mappings are merged, other values replaced, and ``null`` takes a key away.
``extends`` names the experiment whose document a file starts from, in the same way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from srood import manifests
from srood.errors import InputError
from srood.metrics import CONVENTIONS

KIND = "experiments"
PROFILES = ("gpu", "cpu", "smoke")
MEAN = "mean"

Profile = Literal["gpu", "cpu", "smoke"]
Metric = Literal["fpr95", "auroc", "aupr_in", "id_error"]
Protocol = Literal["default", "paper"]
Plot = Literal["by-set", "by-method", "curve", "accuracy"]
# options of `curate build` that a recipe may set; what follows from the experiment (the ID set, say) is not among them
BuildOption = Literal["clusters", "embedder", "exclude_labels", "id_recall", "protect", "quality", "sample"]
# by ID set, network, method, and OOD set or `mean`: per cent by metric
Published = dict[str, dict[str, dict[str, dict[str, dict[Metric, float]]]]]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Method(_Frozen):
    """One row of a table: how the classifier is tuned, and by which score images are told apart."""

    title: str
    train: dict[str, Any] | None = None  # settings of `srood train` beside `tune`; None: the pretrained classifier
    outliers: str | None = None  # one of the experiment's outlier sets
    score: str = "energy"
    x: float | None = None  # where it stands on the axis of a curve
    unavailable: str = ""  # why it cannot be run


class OutlierRecipe(_Frozen):
    """How an outlier set is made."""

    source: str  # the corpus
    size: int = Field(ge=1)  # rows; a corpus that gives fewer is an error
    curated: bool = True  # False: rows drawn at random, with nothing checked but that they decode
    build: dict[BuildOption, Any] = {}  # {start} in a value is the classifier that tuning starts from
    leave_out: str | None = None  # a made set whose rows of the corpus are left out
    seeded: bool = False  # a set of its own for each seed, or one for all


class Experiment(_Frozen):
    """An experiment with a profile's changes made: its runs are all combinations of what is listed."""

    name: str
    title: str
    about: str
    networks: tuple[str, ...] = Field(min_length=1)
    id_sets: tuple[str, ...] = Field(min_length=1)
    image_size: int = 32
    methods: dict[str, Method] = Field(min_length=1)
    control: str | None = None  # the method that others are compared with, seed by seed
    metrics: tuple[Metric, ...] = Field(min_length=1)
    by_set: bool = False  # a row for each OOD set, not for means alone
    ood: tuple[str, ...] = Field(min_length=1)
    groups: dict[str, tuple[str, ...]] = {}  # of OOD sets, whose means are shown too
    convention: str = "id-positive"  # of the FPR under the default protocol
    outliers: dict[str, OutlierRecipe] = {}
    seeds: tuple[int, ...] = Field(min_length=1)
    protocols: tuple[Protocol, ...] = ("default",)
    pretrain: dict[str, Any] = {}  # settings of `srood pretrain`
    tune: dict[str, Any] = {}  # settings of `srood train` that all methods share
    checkpoint: str = ""  # weights to start from where $SROOD_DATA has them: {network} and {id_set} stand for names
    plots: tuple[Plot, ...] = ()
    published: Published = {}

    @model_validator(mode="after")
    def _fits(self) -> Experiment:
        for name, method in self.methods.items():
            if method.outliers is not None and method.outliers not in self.outliers:
                raise ValueError(f"method {name} uses the outlier set {method.outliers}, which is not described")
            if method.outliers is not None and method.train is None:
                raise ValueError(f"method {name} has outliers but is not trained")
        if self.control is not None and self.control not in self.methods:
            raise ValueError(f"control {self.control} is none of the methods")
        if self.convention not in CONVENTIONS:
            raise ValueError(f"convention {self.convention} is none of {', '.join(CONVENTIONS)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is listed twice")
        return self


def names() -> list[str]:
    """The experiments there are, in the order of the page: the paper's tables first."""
    found = manifests.names(KIND)
    return sorted(found, key=lambda name: (not name.startswith("table"), name))


def load(name: str, profile: str) -> Experiment:
    """An experiment under a profile.

    Raises:
        InputError: there is no such experiment or profile, or a file is not as it must be.
    """
    if name not in names():
        raise InputError(f"{name}: no such experiment; choose one of {', '.join(names())}")
    if profile not in PROFILES:
        raise InputError(f"--profile {profile}: is unknown; choose {', '.join(PROFILES)}")
    path = manifests.find(KIND, name)
    assert path is not None
    document = _document(path)
    changes = document.pop("profiles", {})
    if profile not in changes:
        raise InputError(f"--profile {profile}: {name} has no such profile; it has {', '.join(changes)}")
    return parse(merged(document, changes[profile] or {}) | {"name": name}, path)


def parse(document: dict[str, Any], path: Path) -> Experiment:
    """A document as an experiment; `path` is what messages name.

    Raises:
        InputError: a key is unknown or missing, or a value cannot be used.
    """
    try:
        return Experiment(**document)
    except (ValidationError, TypeError) as error:
        if not isinstance(error, ValidationError):
            raise InputError(f"{path}: is no experiment ({error})") from error
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        what = "is unknown; remove it" if first["type"] == "extra_forbidden" else first["msg"]
        raise InputError(f"{path}: {key}: {what[0].lower()}{what[1:]}") from error


def merged(document: dict[str, Any], changes: dict[str, Any], keep: str = "") -> dict[str, Any]:
    """A document with changes made: mappings merged, other values replaced, ``None`` taking a key away.

    Under the key `keep`, and below it, ``None`` stays: it is a change that is made later.
    """
    result = dict(document)
    for key, value in changes.items():
        before = result.get(key)
        if isinstance(value, dict):
            result[key] = merged(before if isinstance(before, dict) else {}, value, "*" if keep in ("*", key) else keep)
        elif value is None and keep != "*":
            result.pop(key, None)
        else:
            result[key] = value
    return result


def _document(path: Path) -> dict[str, Any]:
    document = manifests.read_yaml(path)
    if not isinstance(document, dict):
        raise InputError(f"{path}: is no experiment; a mapping of settings is needed")
    base = document.pop("extends", None)
    if base is None:
        return document
    found = manifests.find(KIND, str(base))
    if found is None or found == path:
        raise InputError(f"{path}: extends {base}, which is no other experiment")
    return merged(_document(found), document, keep="profiles")
