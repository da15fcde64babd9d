"""Pretraining: a classifier from a random start, by cross entropy alone."""

from __future__ import annotations

from pathlib import Path

import torch

from srood.datasets import Images, id_specs
from srood.models import build_model
from srood.models.weights import WeightsInfo
from train import runs
from train.batches import WEIGHTS, derived_seed
from train.batchnorm import check_rows
from train.config import PretrainConfig
from train.devices import placed
from train.id_sets import load_labelled, normalisation
from train.loop import fit
from train.plan import check_parts
from train.reporting import say
from train.summary import say_summary
from train.training_images import training_images


def pretrain(config: PretrainConfig, out: Path | None = None, id_images: Images | None = None) -> Path:
    """Train a classifier on an ID set.

    Args:
        config: every setting
        out: the run folder; by default one under ``runs``, named after ID set, model and seed
        id_images: the training images of ``config.id``, where they are at hand

    Returns:
        the run folder.

    Raises:
        InputError: something in `config` or `out` cannot be used, another process trains there, the disk is full, or
            the loss stopped being finite.
        Stopped: the run was told to stop; its state is saved.
    """
    # everything that can be wrong is found before the run folder is made
    config = placed(config)
    build_model(config.model, 1, config.image_size)
    check_parts(config)
    run = runs.choose_folder(config, out)
    images = id_images or load_labelled(id_specs(config.id)[0], config.image_size)
    torch.manual_seed(derived_seed(config.seed, WEIGHTS))
    model = build_model(config.model, len(images.class_names), config.image_size)
    check_rows(model, id_only=False, shared=config.devices > 1)
    mean, std = normalisation(config.id, WeightsInfo(), images.images)

    info = WeightsInfo(config.model, config.id, mean, std, images.class_names, config.image_size)
    data = training_images(config, images)
    record = runs.describe(config, model, images, info, data.plan(config))
    record["held_out_unseen"] = config.validation > 0
    with runs.new_run(run):
        runs.create(run, config, record, model.state_dict(), info)
        say(f"pretraining {config.model} on {images.spec} into {run} ({config.device}, {config.precision})")
        fit(run, config, data)
        say_summary(run)
    return run
