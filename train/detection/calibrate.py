"""Calibration of a run or a weights file: a threshold from held-out ID images, stored beside the weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from srood import __version__
from srood.calibration import (
    Calibration,
    CalibrationImages,
    calibration_path,
    detector_score,
    write_calibration,
)
from srood.datasets import Images, content_fingerprint, id_specs, load_images, resolve
from srood.detector import BATCH, PixelClassifier, scorer
from srood.devices import resolve_device
from srood.errors import InputError
from srood.files import check_place
from srood.hashes import file_sha256
from srood.progress import progress_bar
from train import runs
from train.config import read_config
from train.detection.thresholds import CONFIDENCE, choose_threshold, images_needed
from train.evaluation.subject import Subject, open_subject
from train.id_sets import check_classes, load_labelled, normalisation, validation_split
from train.reporting import say

DEFAULT_TPR = 0.95
DEFAULT_SCORE = "energy"


def calibrate(
    path: Path,
    *,
    tpr: float = DEFAULT_TPR,
    score: str = DEFAULT_SCORE,
    images: str | None = None,
    model: str | None = None,
    id_set: str | None = None,
    device: str = "auto",
    batch_size: int = BATCH,
) -> tuple[Calibration, Path]:
    """Fix the threshold of a classifier and store it beside the weights.

    Args:
        path: a finished run folder, or a weights file
        tpr: share of ID images to accept, in (0, 1)
        score: a key of `srood.scores.SCORES`
        images: spec of held-out ID images; by default the run's validation split, else the ID set's test images
        model, id_set: architecture and ID set; a run knows its own, a weights file may
        device, batch_size: of the forward pass

    Returns:
        the record, and the file it was written to.

    Raises:
        InputError: a path, spec or option that cannot be used, images that were trained on, or too few of them.
    """
    detector_score(score)
    needed = images_needed(tpr)
    on = resolve_device(device)
    subject = open_subject(path, model, id_set)
    file = calibration_path(path)
    check_place(file)
    size = subject.image_size
    names = _class_names(subject, images)
    held_out, what = _held_out(path, subject, images, size)
    count = len(held_out.images)
    if count < needed:
        raise InputError(
            f"{held_out.spec}: {count:,} images are too few for --tpr {tpr:g}, whose threshold has no upper or lower "
            f"bound with fewer than {needed:,}; give more by --images, or another --tpr"
        )
    mean, std = normalisation(subject.id_set, subject.info)
    scores = _scores(PixelClassifier(subject.classifier, mean, std), score, held_out, on, batch_size)
    chosen = choose_threshold(scores, tpr)
    record = Calibration(
        score=score,
        threshold=chosen.threshold,
        tpr=tpr,
        order_statistic=chosen.order_statistic,
        accepted=chosen.accepted,
        confidence=CONFIDENCE,
        threshold_interval=chosen.threshold_interval,
        acceptance_interval=chosen.acceptance_interval,
        images=CalibrationImages(
            spec=held_out.spec,
            what=what,
            count=count,
            fingerprint=held_out.fingerprint,
            skipped=held_out.skipped,
        ),
        weights_sha256=file_sha256(subject.weights),
        model=subject.model,
        id=subject.id_set,
        class_names=names,
        mean=mean,
        std=std,
        image_size=size,
        srood=__version__,
        torch=str(torch.__version__),
    )
    write_calibration(file, record)
    return record, file


def _held_out(path: Path, subject: Subject, spec: str | None, size: int) -> tuple[Images, str]:
    """The images to calibrate on, and whose they are."""
    if spec is not None:
        return _not_trained_on(path, subject.id_set, spec, size), "images given by --images"
    train_spec, test_spec = id_specs(subject.id_set)
    split = _validation_split(path, subject, train_spec, size)
    if split is not None:
        return split
    if test_spec is None:
        raise InputError(f"{path}: held no images out and {subject.id_set} has no test images; give --images")
    say(
        f"no images were held out of training: calibrating on the ID test images, {test_spec}; what is measured on "
        "them afterwards is not independent of the threshold"
    )
    return _not_trained_on(path, subject.id_set, test_spec, size), "test images of the ID set"


def _validation_split(path: Path, subject: Subject, train_spec: str, size: int) -> tuple[Images, str] | None:
    if not path.is_dir():
        return None
    config, record = read_config(path), runs.read_record(path)
    share = config.validation
    if not share:
        return None
    if not record.get("held_out_unseen"):
        say(f"{path}: its validation split is not used, for the weights it started from may have been trained on it")
        return None
    labelled = load_labelled(train_spec, size, subject.classifier.fc.out_features)
    if labelled.fingerprint != record["id"]["fingerprint"]:
        raise InputError(f"{train_spec}: its images are not those that {path} was started with; restore them")
    rows = validation_split(labelled.labels, share, config.seed)[1]
    held_out = replace(
        labelled,
        spec=f"{train_spec} (validation split)",
        images=labelled.images[rows],
        labels=labelled.labels[rows],
        fingerprint=content_fingerprint(labelled.images[rows]),
        skipped={},
    )
    return held_out, f"validation split of the run: {share:g} of the training images, seed {config.seed}"


def _not_trained_on(path: Path, id_set: str, spec: str, size: int) -> Images:
    """Read images, and refuse those that the classifier was trained on."""
    refusal = InputError(f"{spec}: are the images that the classifier was trained on; give images held out of training")
    source = resolve(spec)
    try:
        if resolve(id_specs(id_set)[0]).fingerprint() == source.fingerprint():
            raise refusal
    except InputError as error:
        if error is refusal:
            raise
        say(f"{spec}: could not be compared with the training images ({error})")
    images = load_images(spec, size)
    if path.is_dir() and images.fingerprint == runs.read_record(path)["id"]["fingerprint"]:
        raise refusal
    return images


def _class_names(subject: Subject, spec: str | None) -> tuple[str, ...]:
    """Names of the classes, which must be those of the ID set; that is not looked up where nothing is needed of it."""
    known = subject.info.class_names
    if spec is not None and known is not None:
        return known
    count = subject.classifier.fc.out_features
    source = resolve(id_specs(subject.id_set)[0])
    names = source.class_names or tuple(str(number) for number in range(count))
    empty = np.empty(0)
    check_classes(str(subject.weights), count, subject.info, Images(source.spec, empty, empty, names, ""))
    return names


def _scores(
    network: PixelClassifier, score: str, held_out: Images, device: torch.device, batch_size: int
) -> np.ndarray:
    run = scorer(network, score, device)
    parts = []
    with progress_bar() as progress:
        task = progress.add_task(held_out.spec, total=len(held_out.images), note="")
        for start in range(0, len(held_out.images), batch_size):
            batch = held_out.images[start : start + batch_size]
            parts.append(run(batch)[2])
            progress.advance(task, len(batch))
    return np.concatenate(parts)
