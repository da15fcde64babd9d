"""Why SROE costs ID accuracy on a narrow network: one epoch of tuning under one change at a time.

    python benchmarks/sroe_accuracy.py --checkpoint resnet20-cifar10.safetensors --outliers manifests/mini.h5

Prints a row for each change: accuracy on the ID test images, and FPR95 and AUROC of the energy score on each OOD set.
Runs are kept under --out and not repeated, so the table can be extended and an interrupted benchmark goes on. The last
column is the accuracy after the running statistics of batch norm are estimated anew from ID images alone, augmented as
in training, with the tuned weights as they are: where it is much higher, tuning has not unlearnt the classes, but left
statistics that are not those of ID images.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from srood.datasets import load_images
from srood.models import Classifier
from srood.models.weights import WeightsInfo, load_model
from train import runs
from train.batches import ID_AUGMENTATION, augment, normalise
from train.config import TuneConfig
from train.devices import describe_device, resolve_device
from train.evaluation.evaluate import evaluate
from train.tune import resume, tune

# name -> what differs from `srood train --outliers ... --epochs 1`
CHANGES: dict[str, dict[str, Any]] = {
    "no outliers: cross entropy alone": {"method": "ce"},
    "no outliers: SR": {"method": "sr"},
    "SROE as in the paper": {},
    "a tenth of the learning rate": {"lr": 0.0001},
    "64 outliers a batch": {"outlier_batch_size": 64},
    "statistics of the ID rows": {"batch_norm": "id"},
    "statistics of the ID rows, 64 outliers a batch": {"batch_norm": "id", "outlier_batch_size": 64},
    "statistics of the ID rows, 64 outliers a batch, beta 0.1": {
        "batch_norm": "id",
        "outlier_batch_size": 64,
        "beta": 0.1,
    },
    "beta 0.1": {"beta": 0.1},
    "statistics of the ID rows, 64 outliers a batch, three epochs": {
        **{"batch_norm": "id", "outlier_batch_size": 64, "epochs": 3}
    },
}


def run_of(arguments: argparse.Namespace, name: str, changes: dict[str, Any]) -> Path:
    """The finished run of a change, trained where it is not there yet."""
    run = arguments.out / name.replace(":", "").replace(",", "").replace(" ", "-")
    if run.is_dir() and any(run.iterdir()):
        return resume(run)
    settings = {"id": arguments.id, "model": arguments.model, "checkpoint": arguments.checkpoint, "epochs": 1}
    settings |= {"seed": arguments.seed, "max_steps": arguments.max_steps}
    outliers = () if changes.get("method") in ("ce", "sr") else arguments.outliers
    return tune(TuneConfig(**{**settings, "outliers": outliers, **changes}), run)


def accuracy_with_id_statistics(run: Path, train: np.ndarray, test: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of a run's weights with batch norm's running statistics taken from (N, H, W, 3) ID images.

    They are augmented: the black borders that padding brings are part of what the network was made for.
    """
    augmented = augment(torch.from_numpy(train), TuneConfig().crop_padding, 0, ID_AUGMENTATION, 0).numpy()
    model, info = load_model(run / runs.MODEL_FILE)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over the batches
    with torch.no_grad():
        _logits(model.train(), augmented, info)
        return float(np.mean(_logits(model.eval(), test, info).argmax(1).numpy() == labels))


def _logits(model: Classifier, images: np.ndarray, info: WeightsInfo) -> torch.Tensor:
    assert info.mean is not None and info.std is not None
    parts = torch.from_numpy(images).split(500)
    return torch.cat([model(normalise(part, info.mean, info.std)) for part in parts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--outliers", required=True)
    parser.add_argument("--id", default="cifar10")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--ood", action="append", help="default: textures, cifar100:test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--only", type=int, help="only the first so many changes")
    parser.add_argument("--out", type=Path, default=Path("runs/sroe-accuracy"))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    ood = arguments.ood or ["textures", "cifar100:test"]
    train, test = (load_images(f"{arguments.id}:{split}") for split in ("train", "test"))
    some = np.random.default_rng(0).permutation(len(train.images))[:10_000]

    rows: list[dict[str, Any]] = []
    for name, changes in list(CHANGES.items())[: arguments.only]:
        run = run_of(arguments, name, changes)
        result = evaluate(run, ood, precision="32-true")
        energies = {spec: result["ood"][spec]["scores"]["energy"] for spec in ood}
        again = accuracy_with_id_statistics(run, train.images[some], test.images, test.labels)
        rows.append({"change": name, "id_accuracy": result["id_accuracy"], "ood": energies, "id_statistics": again})
    print(f"{arguments.model} on {arguments.id}, {describe_device(resolve_device('auto'))}; energy, per cent\n")
    print("| change | ID accuracy | " + " | ".join(f"{s}: FPR95 / AUROC" for s in ood) + " | accuracy, ID statistics |")
    print("|---" * (len(ood) + 3) + "|")
    for row in rows:
        cells = [row["change"], f"{100 * row['id_accuracy']:.2f}"]
        cells += [f"{100 * row['ood'][s]['fpr95']:.2f} / {100 * row['ood'][s]['auroc']:.2f}" for s in ood]
        print(f"| {' | '.join(cells)} | {100 * row['id_statistics']:.2f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
