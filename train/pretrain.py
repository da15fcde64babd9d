"""Pretraining: a classifier from a random start, by cross entropy alone."""

from __future__ import annotations

from pathlib import Path

import torch

from srood.datasets import Images, id_specs
from srood.models import build_model
from srood.models.weights import WeightsInfo
from train import runs
from train.batches import derived_seed, steps_per_epoch
from train.config import PretrainConfig
from train.devices import describe_device, placed
from train.id_sets import id_record, load_labelled, normalisation
from train.loop import fit, total_steps
from train.reporting import say


def pretrain(config: PretrainConfig, out: Path | None = None, id_images: Images | None = None) -> Path:
    """Train a classifier on an ID set.

    Args:
        config: every setting
        out: the run folder; by default one under ``runs``, named after ID set, model and seed
        id_images: the training images of ``config.id``, where they are at hand

    Returns:
        the run folder.

    Raises:
        InputError: something in `config` or `out` cannot be used, or the loss stopped being finite.
    """
    # everything that can be wrong is found before the run folder is made
    config = placed(config)
    torch.manual_seed(derived_seed(config.seed))
    build_model(config.model, 1, config.image_size)
    run = runs.choose_folder(config, out)
    images = id_images or load_labelled(id_specs(config.id)[0], config.image_size)
    torch.manual_seed(derived_seed(config.seed))
    model = build_model(config.model, len(images.class_names), config.image_size)
    mean, std = normalisation(config.id, WeightsInfo(), images.images)

    info = WeightsInfo(config.model, config.id, mean, std, images.class_names, config.image_size)
    record = {
        "workflow": config.workflow,
        "model": config.model,
        "parameters": sum(p.numel() for p in model.parameters()),
        "id": id_record(images, config.id, mean, std),
        "device": describe_device(torch.device(config.device)),
        "precision": config.precision,
        "steps_per_epoch": steps_per_epoch(len(images.labels), config.batch_size),
        "steps": total_steps(config, len(images.labels)),
    }
    runs.create(run, config, record, model.state_dict(), info)
    say(f"pretraining {config.model} on {images.spec} into {run} ({config.device}, {config.precision})")
    fit(run, config, images.images, images.labels, None)
    return run
