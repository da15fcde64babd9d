"""Finished runs without the training: seeded weights in run folders, for tests of what is done with runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import yaml
from digits_images import digits, write_parquet

from srood.models import build_model
from srood.models.weights import WeightsInfo, save_weights
from train.config import CONFIG_FILE, PretrainConfig, config_values
from train.runs import MODEL_FILE
from train.seeds import SEEDS_FILE

MEAN, STD = (0.3, 0.3, 0.3), (0.4, 0.4, 0.4)


def make_run(folder: Path, id_set: Path, seed: int = 0) -> Path:
    """A run of a ResNet-20 on ten classes that was never trained."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    config = PretrainConfig(id=str(id_set), model="resnet20", seed=seed)
    (folder / CONFIG_FILE).write_text(yaml.safe_dump(config_values(config)))
    info = WeightsInfo("resnet20", str(id_set), MEAN, STD, tuple("0123456789"), 32)
    save_weights(folder / MODEL_FILE, build_model("resnet20", 10).state_dict(), info)
    return folder


def make_group(folder: Path, id_set: Path, seeds: int = 3) -> Path:
    """A seed group as `srood train --seeds` leaves it."""
    names = [f"seed-{seed}" for seed in range(seeds)]
    for seed, name in enumerate(names):
        make_run(folder / name, id_set, seed)
    document = {"seeds": list(range(seeds)), "runs": names, "config": {"workflow": "pretrain"}}
    (folder / SEEDS_FILE).write_text(json.dumps(document))
    return folder


def write_ood(path: Path, count: int = 60, noise: int = 60, seed: int = 0) -> Path:
    """Inverted digits with noise on them."""
    images, labels = digits()
    rng = np.random.default_rng(seed)
    changed = 255 - images[:count].astype(int) + rng.integers(-noise, noise + 1, (count, 32, 32, 3))
    return write_parquet(path, np.clip(changed, 0, 255).astype(np.uint8), labels[:count])
