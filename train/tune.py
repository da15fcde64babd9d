"""Tuning a pretrained classifier, SR or SROE, and continuing any run that was interrupted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from srood.datasets import Images, id_specs
from srood.errors import InputError
from srood.models import check_model
from srood.models.weights import WeightsInfo, load_model
from srood.outliers import OutlierSet, file_sha256
from train import runs
from train.batches import steps_per_epoch
from train.config import PretrainConfig, TuneConfig, read_config
from train.devices import describe_device, placed, resolve_device
from train.id_sets import check_classes, id_record, load_labelled, normalisation
from train.loop import fit, total_steps
from train.pretrain import pretrain
from train.reporting import say


def tune(config: TuneConfig, out: Path | None = None) -> Path:
    """Tune a classifier: SROE with ``config.outliers``, SR without (paper, "The recipe").

    Without ``config.checkpoint`` it starts from the newest pretrained run under ``runs`` for the same ID set and
    model, and pretrains one where there is none.

    Args:
        config: every setting
        out: the run folder; by default one under ``runs``, named after ID set, model, workflow and seed

    Returns:
        the run folder.

    Raises:
        InputError: something in `config` or `out` cannot be used, or the loss stopped being finite.
    """
    # everything that can be wrong is found before the run folder is made
    config = placed(config)
    check_model(config.model)
    run = runs.choose_folder(config, out)
    outliers = None if config.outliers is None else OutlierSet.open(config.outliers)
    weights = None if config.checkpoint is None else runs.find_weights(config.checkpoint)
    if weights is not None:
        config = _with_image_size(config, load_model(weights, config.model, config.image_size)[1])
    check_outliers(outliers, config)
    images = load_labelled(id_specs(config.id)[0], config.image_size)
    if weights is None:
        weights = _pretrained(config, images)
    model, info = load_model(weights, config.model, config.image_size)
    check_classes(str(weights), model.fc.out_features, info, images)
    mean, std = normalisation(config.id, info, images.images)

    config = config.model_copy(update={"checkpoint": weights})
    record = {
        "workflow": config.workflow,
        "model": config.model,
        "parameters": sum(p.numel() for p in model.parameters()),
        "id": id_record(images, config.id, mean, std),
        "start": {"file": str(weights), "sha256": file_sha256(weights)},
        "outliers": _outlier_record(outliers),
        "device": describe_device(torch.device(config.device)),
        "precision": config.precision,
        "steps_per_epoch": steps_per_epoch(len(images.labels), config.batch_size),
        "steps": total_steps(config, len(images.labels)),
    }
    info = WeightsInfo(config.model, config.id, mean, std, images.class_names, config.image_size)
    runs.create(run, config, record, model.state_dict(), info)
    against = "" if outliers is None else f" with {outliers.num_rows:,} outliers of {config.outliers}"
    where = f"{config.device}, {config.precision}"
    say(f"{config.workflow.upper()}: tuning {weights} on {images.spec}{against} into {run} ({where})")
    fit(run, config, images.images, images.labels, None if outliers is None else outliers.read_images())
    return run


def resume(run: Path, device: str | None = None) -> Path:
    """Continue a run from its newest checkpoint; on the same device the result is that of an undisturbed run.

    Args:
        run: a run folder of any workflow; a finished one is left as it is
        device: a device other than the run's

    Returns:
        the run folder.

    Raises:
        InputError: not a run folder, or its images or outliers are no longer those it was started with.
    """
    config = read_config(run)
    if runs.is_finished(run):
        say(f"{run}: this run is finished; nothing to do")
        return run
    if device is not None:
        config = config.model_copy(update={"device": str(resolve_device(device))})
    record = runs.read_record(run)
    outliers = None
    if isinstance(config, TuneConfig) and config.outliers is not None:
        outliers = OutlierSet.open(config.outliers)
        if outliers.fingerprint != record["outliers"]["fingerprint"]:
            raise InputError(f"{config.outliers}: is not the outlier set that {run} was started with; restore it")
    images = load_labelled(id_specs(config.id)[0], config.image_size)
    if images.fingerprint != record["id"]["fingerprint"]:
        raise InputError(f"{images.spec}: its images are not those that {run} was started with; restore them")
    say(f"continuing {run} from {runs.newest_checkpoint(run)}")
    pixels: np.ndarray | None = None if outliers is None else outliers.read_images()
    fit(run, config, images.images, images.labels, pixels)
    return run


def check_outliers(outliers: OutlierSet | None, config: TuneConfig) -> None:
    """Check that an outlier set can be used with the images of a run.

    Raises:
        InputError: it holds no rows, or its images have another size.
    """
    if outliers is None:
        return
    if outliers.num_rows == 0:
        raise InputError(f"{outliers.path}: holds no rows; build it again with a larger corpus or weaker filters")
    size = config.image_size
    if outliers.image_shape != (size, size, 3):
        height, width, _ = outliers.image_shape
        raise InputError(
            f"{outliers.path}: its images are {height}x{width}, the classifier's {size}x{size}; build it with "
            f"`curate build --image-size {size}`"
        )


def _pretrained(config: TuneConfig, images: Images) -> Path:
    found = runs.find_pretrained(config.model, images.fingerprint)
    if found is not None:
        steps = runs.read_record(found)["steps"]
        say(f"no --checkpoint given: starting from the newest pretrained run, {found} ({steps:,} steps)")
        return found / runs.MODEL_FILE
    say(f"no --checkpoint given and no pretrained run of {config.model} on {config.id} found: pretraining first")
    shared = ("id", "model", "image_size", "batch_size", "crop_padding", "seed", "device", "precision", "max_steps")
    settings = {name: getattr(config, name) for name in shared}
    return pretrain(PretrainConfig(**settings), id_images=images) / runs.MODEL_FILE


def _with_image_size(config: TuneConfig, info: WeightsInfo) -> TuneConfig:
    return config if info.image_size is None else config.model_copy(update={"image_size": info.image_size})


def _outlier_record(outliers: OutlierSet | None) -> dict[str, object] | None:
    if outliers is None:
        return None
    return {"file": str(outliers.path), "fingerprint": outliers.fingerprint, "rows": outliers.num_rows}
