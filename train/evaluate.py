"""Evaluation: ID accuracy, and every score's metrics on every OOD set, from one forward pass over each image."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from srood.datasets import Images, id_specs, load_images, resolve
from srood.errors import InputError
from srood.files import write_text
from srood.metrics import CONVENTIONS, DEFAULT_CONVENTION, ood_metrics
from srood.models import Classifier
from srood.models.weights import Triple, WeightsInfo, load_model
from srood.outliers import file_sha256
from srood.progress import progress_bar
from srood.scores import SCORES
from train import runs
from train.batches import normalise
from train.config import read_config
from train.devices import describe_device, make_fabric, resolve_device, resolve_precision
from train.id_sets import check_classes, id_record, load_labelled, normalisation
from train.plots import plot_histograms, plot_roc

METRICS = ("fpr95", "auroc", "aupr_in", "aupr_out")
PLOTTED_SCORE = "energy"


def evaluate(
    path: Path,
    ood: Sequence[str],
    *,
    model: str | None = None,
    id_set: str | None = None,
    out: Path | None = None,
    convention: str = DEFAULT_CONVENTION,
    device: str = "auto",
    precision: str = "32-true",
    batch_size: int = 500,
) -> dict[str, Any]:
    """Evaluate a classifier as an OOD detector on whole image sets, and write what is found.

    Writes eval.json, eval.csv, eval-scores.png and eval-roc.png.

    Args:
        path: a run folder, or a weights file
        ood: specs of OOD sets
        model, id_set: architecture and ID set; a run knows its own, a weights file may
        out: folder to write into; by default the run, or ``runs/eval-<stem>`` for a weights file
        convention: which FPR95, a key of `srood.metrics.CONVENTIONS`
        device, precision, batch_size: of the forward pass

    Returns:
        what eval.json holds (shares in [0, 1], by OOD set and score under ``ood``, their plain means under ``mean``),
        and under ``out`` the folder written into.

    Raises:
        InputError: a path, set or option that cannot be used; before any forward pass.
    """
    # everything that can be wrong is found before the first image is read, or at least before the forward pass
    if convention not in CONVENTIONS:
        raise InputError(f"--convention {convention}: is unknown; choose one of {', '.join(CONVENTIONS)}")
    if not ood:
        raise InputError("--ood: is missing; name one or more OOD sets, like --ood textures --ood cifar100:test")
    if len(set(ood)) != len(ood):
        raise InputError(f"--ood: {next(spec for spec in ood if ood.count(spec) > 1)} is given twice; give it once")
    on = resolve_device(device)
    precision = resolve_precision(precision, on)
    subject = open_subject(path, model, id_set)
    weights, classifier, info, id_set = subject.weights, subject.classifier, subject.info, subject.id_set
    test_spec = id_specs(id_set)[1]
    if test_spec is None:
        raise InputError(f"--id {id_set}: has no test images; put them into {id_set}/test and the others into train")
    for spec in ood:
        resolve(spec)
    size = info.image_size or 32
    id_images = load_labelled(test_spec, size, classifier.fc.out_features)
    check_classes(str(weights), classifier.fc.out_features, info, id_images)
    mean, std = normalisation(id_set, info)
    ood_images = {spec: load_images(spec, size) for spec in ood}
    folder = out or (path if path.is_dir() else runs.RUNS / f"eval-{path.stem}")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder}: is a file; name a folder")

    # one forward pass over each image
    def logits_of(name: str, images: np.ndarray) -> torch.Tensor:
        with progress_bar() as progress:
            task = progress.add_task(name, total=len(images), note="")
            logits = forward(
                classifier, images, on, precision, mean, std, batch_size, lambda n: progress.advance(task, n)
            )
        if not torch.isfinite(logits).all():
            raise InputError(f"{weights}: gives logits that are not finite; use another checkpoint, or 32-true")
        return logits

    id_logits = logits_of(id_images.spec, id_images.images)
    id_scores = _scores(id_logits)
    accuracy = float((id_logits.argmax(dim=1).numpy() == id_images.labels).mean())
    sets: dict[str, Any] = {}
    plotted: dict[str, np.ndarray] = {}
    for spec, images in ood_images.items():
        scores = _scores(logits_of(spec, images.images))
        metrics = {name: ood_metrics(id_scores[name], scores[name], convention) for name in SCORES}
        sets[spec] = {**_set_record(images), "scores": metrics}
        plotted[spec] = scores[PLOTTED_SCORE]
    means = {
        name: {metric: float(np.mean([s["scores"][name][metric] for s in sets.values()])) for metric in METRICS}
        for name in SCORES
    }
    result = {
        "weights": {"file": str(weights), "sha256": file_sha256(weights)},
        "model": subject.model,
        "id": id_record(id_images, id_set, mean, std),
        "id_accuracy": accuracy,
        "convention": {"name": convention, "fpr95": CONVENTIONS[convention]},
        "ood": sets,
        "mean": means,
        "device": describe_device(on),
        "precision": precision,
        "versions": runs.versions(),
    }

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "eval.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "eval.csv", to_csv(result))
    plot_histograms(id_scores[PLOTTED_SCORE], plotted, PLOTTED_SCORE, folder / "eval-scores.png")
    plot_roc(id_scores[PLOTTED_SCORE], plotted, PLOTTED_SCORE, folder / "eval-roc.png")
    return {**result, "out": str(folder)}


@dataclass(frozen=True)
class Subject:
    """A classifier to evaluate: where its weights are, what they are, and the ID set it was trained on."""

    weights: Path
    classifier: Classifier
    info: WeightsInfo
    model: str
    id_set: str


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


def forward(
    classifier: Classifier,
    images: np.ndarray,
    device: torch.device,
    precision: str,
    mean: Triple,
    std: Triple,
    batch_size: int = 500,
    advance: Callable[[int], None] | None = None,
) -> torch.Tensor:
    """Logits of (N, H, W, 3) uint8 images, (N, C) float32 on the CPU; the classifier is put into evaluation mode.

    `advance` is called with the number of images after every batch.
    """
    model = make_fabric(device, precision).setup(classifier.eval())
    logits = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(images[start : start + batch_size]).to(device)
            logits.append(model(normalise(batch, mean, std)).float().cpu())
            if advance is not None:
                advance(len(batch))
    return torch.cat(logits)


def to_csv(result: dict[str, Any]) -> str:
    """The result as a table: a row per OOD set and score, then the means; shares in [0, 1]."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["ood", "score", *METRICS, "ood_images", "id_images", "id_accuracy", "convention"])
    id_part = [result["id"]["images"], result["id_accuracy"], result["convention"]["name"]]
    for spec, entry in result["ood"].items():
        for score, metrics in entry["scores"].items():
            writer.writerow([spec, score, *(metrics[m] for m in METRICS), entry["images"], *id_part])
    for score, metrics in result["mean"].items():
        writer.writerow(["mean", score, *(metrics[m] for m in METRICS), "", *id_part])
    return text.getvalue()


def _scores(logits: torch.Tensor) -> dict[str, np.ndarray]:
    # in float64: softmax in float32 is 1 for many ID images, and the ties change MSP's AUROC by 0.02 %
    return {name: score(logits.double(), logits).numpy() for name, score in SCORES.items()}


def _set_record(images: Images) -> dict[str, Any]:
    return {
        "spec": images.spec,
        "fingerprint": images.fingerprint,
        "images": len(images.labels),
        "skipped": images.skipped,
    }
