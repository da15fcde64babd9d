"""Finished runs to publish, made of scikit-learn's digits: one without a path in its record, one full of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

from digits_images import digits, write_digits, write_noise, write_parquet

from srood.hashes import file_sha256
from train.config import PretrainConfig, TuneConfig
from train.evaluation.evaluate import evaluate
from train.pretrain import pretrain
from train.tune import tune

SMALL = {"model": "resnet20", "batch_size": 16, "max_steps": 2, "device": "cpu", "precision": "32-true"}


def make_evaluated(root: Path) -> Path:
    """A pretrained and evaluated run whose ID and OOD set are named without a path."""
    before = Path.cwd()
    os.chdir(root)
    try:
        write_digits(root / "digits", train=40, test=40)
        images, labels = digits()
        write_parquet(root / "inverted.parquet", 255 - images[:30], labels[:30])
        run = pretrain(PretrainConfig(id="digits", **SMALL), root / "run")
        evaluate(run, ["inverted.parquet"])
    finally:
        os.chdir(before)
    return run


def make_local(root: Path, evaluated: Path) -> Path:
    """A run tuned and evaluated with absolute paths, some with spaces, and something like a calibrated detector."""
    id_set = write_digits(root / "photos of mine", train=40, test=40)
    noise = write_noise(root / "out liers")
    settings = {**SMALL, "outlier_batch_size": 16, "alpha": 0.03}
    config = TuneConfig(id=str(id_set), checkpoint=evaluated, outliers=noise, **settings)
    run = tune(config, root / "runs" / "first try")
    write_digits(root / "other", train=30, test=40)
    evaluate(run, [str(root / "photos of mine/train.parquet"), str(root / "other/train.parquet")])
    detector = {
        "score": "energy",
        "threshold": -1.25,
        "tpr": 0.95,
        "images": {
            "spec": f"{id_set}/test.parquet",
            "what": f"40 images of {id_set}/test.parquet, by {root}/bin/srood",
        },
        "weights_sha256": file_sha256(run / "model.safetensors"),
        "class_names": ["/m/01g317", "bus/truck"],
    }
    (run / "detector.json").write_text(json.dumps(detector))
    return run
