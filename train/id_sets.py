"""The ID set of a run or an evaluation: its images with a label each, its classes, its normalisation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from srood.datasets import Images, dataset_info, load_images
from srood.errors import InputError
from srood.models.weights import Triple, WeightsInfo
from train.batches import VALIDATION, derived_seed


def load_labelled(spec: str, image_size: int, num_classes: int = 0) -> Images:
    """Read a labelled image set; classes without a name are named by their number.

    Args:
        spec: an image spec
        image_size: side of the images
        num_classes: how many classes there are at least, where the set does not name its classes

    Raises:
        InputError: the spec resolves nowhere, an image has no label or one that is not a class, or most of the numbers
            below the largest label are no class.
    """
    images = load_images(spec, image_size)
    unlabelled = int((images.labels < 0).sum())
    if unlabelled:
        raise InputError(
            f"{spec}: {unlabelled:,} of {len(images.labels):,} images have no label; an ID set needs a label for "
            "each (class subfolders, or a label column)"
        )
    if not images.class_names:
        count, distinct = max(num_classes, int(images.labels.max()) + 1), len(np.unique(images.labels))
        if count > max(num_classes, 2 * distinct):  # years, say: each number below would be a class without an image
            raise InputError(
                f"{spec}: its labels go up to {images.labels.max():,} but only {distinct:,} of them occur; number the "
                "classes from 0"
            )
        images = replace(images, class_names=tuple(str(number) for number in range(count)))
    if images.labels.max() >= len(images.class_names):
        raise InputError(
            f"{spec}: has the label {images.labels.max()} but only {len(images.class_names)} class names; correct it"
        )
    return images


def normalisation(id_set: str, info: WeightsInfo, images: np.ndarray | None = None) -> tuple[Triple, Triple]:
    """Mean and standard deviation of the channels: the weights file's, else the named set's, else those of `images`.

    Raises:
        InputError: none of the three is there.
    """
    if info.mean is not None and info.std is not None:
        return info.mean, info.std
    known = dataset_info(id_set)
    if known is not None and known.mean is not None and known.std is not None:
        return known.mean, known.std
    if images is None:
        raise InputError(
            f"--id {id_set}: neither the weights file nor a named set gives the mean and std of its channels; "
            "evaluate the run folder, or add mean and std to the file's metadata"
        )
    total, squares = np.zeros(3), np.zeros(3)
    for start in range(0, len(images), 4096):  # in pieces: float64 takes eight times the room
        part = images[start : start + 4096].reshape(-1, 3) / 255.0
        total += part.sum(axis=0)
        squares += (part**2).sum(axis=0)
    count = images.size / 3
    mean = total / count
    # a channel without variation is left unscaled
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    std[std < 1e-6] = 1.0
    rounded = [[round(float(value), 6) for value in values] for values in (mean, std)]
    return (rounded[0][0], rounded[0][1], rounded[0][2]), (rounded[1][0], rounded[1][1], rounded[1][2])


def validation_split(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows held out, each class alike: a function of labels, share and seed alone.

    Args:
        labels: (N,) int64
        share: of the images of each class, in [0, 1); what is held out is rounded, and at least one of two or more
        seed: of the run

    Returns:
        train_rows, held_out_rows: int64, ascending; together every row once
    """
    held_out = np.zeros(len(labels), bool)
    if share > 0:
        rng = np.random.default_rng(derived_seed(seed, VALIDATION))
        for label in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == label))
            held_out[rows[: min(len(rows) - 1, max(1, round(share * len(rows))))]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def check_classes(what: str, num_classes: int, info: WeightsInfo, images: Images) -> None:
    """Check that the logits of a weights file are the classes of an ID set.

    Raises:
        InputError: another number of classes, or other names.
    """
    if num_classes != len(images.class_names):
        raise InputError(
            f"{what}: has {num_classes} classes, {images.spec} has {len(images.class_names)}; "
            "give the --id that the classifier was trained on"
        )
    if info.class_names is not None and info.class_names != images.class_names:
        pairs = zip(info.class_names, images.class_names, strict=True)
        ours, theirs = next(pair for pair in pairs if pair[0] != pair[1])
        raise InputError(
            f"{what}: was trained on other classes than {images.spec} ('{ours}' where that has '{theirs}'); "
            "give the --id that the classifier was trained on"
        )


def id_record(images: Images, id_set: str, mean: Triple, std: Triple) -> dict[str, object]:
    """What a run or an evaluation notes of its ID images."""
    return {
        "name": id_set,
        "spec": images.spec,
        "fingerprint": images.fingerprint,
        "images": len(images.labels),
        "skipped": images.skipped,
        "classes": len(images.class_names),
        "mean": list(mean),
        "std": list(std),
    }
