"""The images of an evaluation, read and checked before the first forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from srood.datasets import Images, id_specs, load_images
from srood.errors import InputError
from srood.progress import progress_bar
from train.evaluation.ood_sets import OodSet
from train.evaluation.subject import Subject
from train.id_sets import check_classes, load_labelled, normalisation

KEEP = 4 << 30  # bytes of pixels held at a time; sets beyond that are read again when their turn comes


@dataclass(frozen=True)
class ImageSet:
    """An image set whose pixels are in memory, or are read again by `pixels`."""

    name: str  # as it was asked for
    images: Images
    size: int

    def pixels(self) -> np.ndarray:
        """(N, H, W, 3) uint8.

        Raises:
            InputError: the images are others than they were when they were read first.
        """
        if len(self.images.images) == len(self.images.labels):
            return self.images.images
        again = load_images(self.name, self.size)
        if again.fingerprint != self.images.fingerprint:
            raise InputError(f"{self.name}: has changed while it was evaluated; start again")
        return again.images


@dataclass(frozen=True)
class EvalImages:
    """ID test images, ID training images where a score is fitted on them, and the OOD sets that can be had."""

    test: ImageSet
    train: ImageSet | None
    ood: dict[str, ImageSet]
    missing: dict[str, str]  # reason by spec


def read_images(subjects: Sequence[Subject], sets: Sequence[OodSet], with_train: bool) -> EvalImages:
    """Read every set once.

    Args:
        subjects: one classifier, or several of the same ID set and image size
        sets: as `train.evaluation.ood_sets.find_sets` found them
        with_train: whether the ID training images are needed

    Raises:
        InputError: the ID set has no test images, classes that are not the classifier's, other classes among its
            training images, or no mean and std; a set that was asked for by itself cannot be read or is the ID set; or
            two sets are the same images.
    """
    id_set, size, classes = subjects[0].id_set, subjects[0].image_size, subjects[0].classifier.fc.out_features
    train_spec, test_spec = id_specs(id_set)
    if test_spec is None:
        raise InputError(f"--id {id_set}: has no test images; put them into {id_set}/test and the others into train")
    kept = 0

    def held(name: str, images: Images) -> ImageSet:
        nonlocal kept
        if kept + images.images.nbytes > KEEP:
            images = replace(images, images=images.images[:0].copy())
        kept += images.images.nbytes
        return ImageSet(name, images, size)

    found = [entry for entry in sets if not entry.reason]
    missing = {entry.spec: entry.reason for entry in sets if entry.reason}
    ood: dict[str, ImageSet] = {}
    specs: dict[str, str] = {}  # by fingerprint
    with _reading(1 + with_train + len(found)) as step:
        step(test_spec)
        test = held(test_spec, load_labelled(test_spec, size, classes))
        for subject in subjects:
            check_classes(str(subject.weights), subject.classifier.fc.out_features, subject.info, test.images)
            normalisation(subject.id_set, subject.info)
        own = {test.images.fingerprint: test_spec}
        train = None
        if with_train:
            step(train_spec)
            train = held(train_spec, load_labelled(train_spec, size, classes))
            _check_training(subjects, train.images, test.images)
            own[train.images.fingerprint] = train_spec
        for entry in found:
            step(entry.spec)
            try:
                images = load_images(entry.spec, size)
                if images.fingerprint in own:
                    raise InputError(
                        f"--ood {entry.spec}: holds the ID images of {own[images.fingerprint]}; leave it out"
                    )
                ood[entry.spec] = held(entry.spec, images)
            except InputError as error:
                if entry.required:
                    raise
                missing[entry.spec] = str(error)
            else:
                first = specs.setdefault(ood[entry.spec].images.fingerprint, entry.spec)
                if first != entry.spec:
                    raise InputError(f"--ood: {first} and {entry.spec} are the same images; give one of them")
    missing = {entry.spec: missing[entry.spec] for entry in sets if entry.spec in missing}  # in the order asked for
    if not ood:
        raise InputError(f"--ood: none of the sets can be read; {next(iter(missing.values()))}")
    return EvalImages(test, train, ood, missing)


def _check_training(subjects: Sequence[Subject], train: Images, test: Images) -> None:
    """Labels of ID training images, on which scores are fitted, must number the same classes as the logits do."""
    for subject in subjects:
        check_classes(str(subject.weights), subject.classifier.fc.out_features, subject.info, train)
    if train.class_names != test.class_names:
        pairs = zip(train.class_names, test.class_names, strict=True)
        ours, theirs = next(pair for pair in pairs if pair[0] != pair[1])
        raise InputError(
            f"{train.spec}: has other classes than {test.spec} ('{ours}' where that has '{theirs}'); correct the set"
        )


@contextmanager
def _reading(total: int) -> Iterator[Callable[[str], None]]:
    """Yields a function to be called with the name of each set before it is read."""
    with progress_bar("sets") as progress:
        task = progress.add_task("reading", total=total, note="")
        begun = 0

        def step(name: str) -> None:
            nonlocal begun
            progress.update(task, completed=begun, note=name)
            begun += 1

        yield step
        progress.update(task, completed=total, note="")
