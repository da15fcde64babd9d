"""The record of a calibration: the threshold, what it was fixed on, and what a detector needs besides its weights.

It lies beside the weights: ``detector.json`` in a run folder, ``NAME.detector.json`` next to ``NAME.safetensors``; an
exported detector carries it inside.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from srood.errors import InputError
from srood.files import write_text
from srood.scores import SCORES, Score

CALIBRATION_FILE = "detector.json"
Share = Annotated[float, Field(ge=0, le=1)]


class CalibrationImages(BaseModel):
    """The held-out ID images that a threshold was fixed on."""

    model_config = ConfigDict(frozen=True)

    spec: str
    what: str  # for people: whose images they are
    count: int = Field(ge=1)
    fingerprint: str  # SHA-256 of their pixels, as of srood.datasets.content_fingerprint
    skipped: dict[str, int] = {}  # images that could not be decoded, by reason


class Calibration(BaseModel):
    """Everything that turns a weights file into a detector: an image is accepted where its score <= `threshold`."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    schema_version: Literal[1] = 1
    score: str  # a key of srood.scores.SCORES
    threshold: FiniteFloat
    tpr: float = Field(gt=0, lt=1)  # share of ID images that was to be accepted
    order_statistic: int = Field(ge=1)  # the threshold is this one of the scores, ascending, counted from 1
    accepted: int = Field(ge=1)  # images at or below the threshold; more than the order statistic where scores tie
    confidence: float = Field(gt=0, lt=1)  # of the two intervals
    threshold_interval: tuple[FiniteFloat, FiniteFloat]  # of the `tpr` quantile of all ID scores
    acceptance_interval: tuple[Share, Share]  # of the share of all ID images that this threshold accepts
    images: CalibrationImages
    weights_sha256: str
    model: str  # architecture
    id: str  # the ID set
    class_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int = Field(ge=1)
    srood: str  # versions
    torch: str

    @model_validator(mode="after")
    def _known_score(self) -> Calibration:
        if self.score not in SCORES:
            raise ValueError(f"score {self.score!r} is not one of {', '.join(SCORES)}")
        return self

    def to_json(self) -> str:
        """The record as an indented JSON document; floats read back as they were."""
        return self.model_dump_json(indent=2)


def detector_score(name: str) -> Score:
    """The score of a detector as a function of logits (N, C) and features (N, D).

    Raises:
        InputError: not a score that one forward pass gives, such as one that has to be fitted.
    """
    if name not in SCORES:
        raise InputError(
            f"--score {name}: cannot be part of a detector, which has logits and features of one forward pass only; "
            f"choose one of {', '.join(SCORES)}"
        )
    return SCORES[name]


def calibration_path(path: Path) -> Path:
    """Where the calibration of a run folder or a weights file lies."""
    return path / CALIBRATION_FILE if path.is_dir() else path.with_suffix(f".{CALIBRATION_FILE}")


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write the whole record, or leave what was there."""
    write_text(path, calibration.to_json() + "\n")


def parse_calibration(text: str | bytes, where: str) -> Calibration:
    """Read a record.

    Raises:
        InputError: it is damaged, or of a later version; `where` is what the message names.
    """
    try:
        return Calibration.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{where}: is not a calibration that can be read ({field + ': ' if field else ''}{first['msg']}); "
            "run `srood calibrate` again"
        ) from error


def read_calibration(path: Path) -> Calibration:
    """Read a record from its file.

    Raises:
        InputError: the file cannot be read, or `parse_calibration` refuses it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); run `srood calibrate` again") from error
    return parse_calibration(data, str(path))
