"""Run folders and calibrated classifiers that the detector's tests share: untrained, but with settled batch norm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from digits_images import digits
from PIL import Image

from srood.datasets import id_specs, load_images
from srood.models import Classifier, build_model
from srood.models.weights import WeightsInfo, save_weights
from train import runs
from train.config import PretrainConfig
from train.detection.calibrate import calibrate

MEAN, STD = (0.3, 0.4, 0.5), (0.25, 0.3, 0.35)
CLASSES = tuple(f"digit {number}" for number in range(10))


def settled(name: str, seed: int = 0) -> Classifier:
    """A classifier with random weights whose batch norm has seen the digits, so that its logits differ by image."""
    torch.manual_seed(seed)
    model = build_model(name, 10)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # plain averages
    torch.nn.init.normal_(model.fc.weight)
    with torch.no_grad():
        model.train()(normalised(digits()[0][:64]))
    return model.eval()


def normalised(images: np.ndarray) -> torch.Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32, by the formula."""
    x = (images / 255 - np.array(MEAN)) / np.array(STD)
    return torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32))


def write_weights(path: Path, name: str = "resnet20", dataset: str = "digits") -> Path:
    """A weights file that knows everything of itself."""
    info = WeightsInfo(name, dataset, MEAN, STD, CLASSES, 32)
    save_weights(path, settled(name).state_dict(), info)
    return path


def write_calibrated(folder: Path, name: str = "resnet20", score: str = "energy") -> Path:
    """A weights file calibrated so that half of the digits are in: the threshold lies among their scores."""
    np.save(folder / "held-out.npy", digits()[0][:40])
    path = write_weights(folder / "net.safetensors", name)
    calibrate(path, tpr=0.5, score=score, images=str(folder / "held-out.npy"), device="cpu")
    return path


def write_png(path: Path, pixels: np.ndarray) -> Path:
    """An image file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_run(folder: Path, id_set: Path, unseen: bool = True, **settings: Any) -> Path:
    """A finished run on an ID set whose labels are numbers, as training leaves it."""
    config = PretrainConfig(id=str(id_set), model="resnet20", device="cpu", **settings)
    images = load_images(id_specs(str(id_set))[0], 32)
    model = settled("resnet20")
    info = WeightsInfo("resnet20", str(id_set), MEAN, STD, tuple("0123456789"), 32)
    record = {"id": {"fingerprint": images.fingerprint}, "held_out_unseen": unseen}
    runs.create(folder, config, record, model.state_dict(), info)
    save_weights(folder / runs.MODEL_FILE, model.state_dict(), info)
    return folder


def logits_by_hand(weights_model: Classifier, images: np.ndarray) -> np.ndarray:
    """(N, C) float64."""
    with torch.no_grad():
        return weights_model(normalised(images)).double().numpy()
