"""The demonstration: from a corpus to a tuned detector on images that need no download."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from srood.errors import InputError
from srood.files import check_folder
from train.config import PretrainConfig, TuneConfig
from train.curate_command import run_curate
from train.demo_images import DemoImages, write_demo_images
from train.evaluation.evaluate import evaluate
from train.pretrain import pretrain
from train.reporting import say
from train.tune import tune

MODEL = "resnet20"
OUTLIERS = 1_200
PRETRAIN_EPOCHS, TUNE_EPOCHS = 25, 8
METRICS = ("fpr95", "auroc", "aupr_in", "aupr_out")
TUNE_LR = 0.02  # not the paper's 0.001: so few images make so few steps


def demo(folder: Path, seed: int = 0, device: str = "auto") -> dict[str, Any]:
    """Build an outlier set, pretrain, tune both ways, evaluate all three; everything is written under `folder`.

    Returns:
        the evaluations by name: ``pretrained``, ``SR``, ``SROE``.

    Raises:
        InputError: `folder` holds something else, or scikit-image is missing.
    """
    start = time.monotonic()
    marker = folder / "made-by-srood-demo"
    check_folder(folder, "--out ")
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise InputError(f"--out {folder}: holds something else; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()
    for earlier in folder.iterdir():  # the folder itself may be the working one, or a link
        if earlier.is_dir() and not earlier.is_symlink():
            shutil.rmtree(earlier)
        elif earlier != marker:
            earlier.unlink()

    try:
        images = write_demo_images(folder, seed)
    except (ImportError, FileNotFoundError) as error:
        raise InputError(f"the demo needs scikit-image: pip install 'srood[demo]' ({error})") from error
    say(f"images: {images.id} (digits), {images.corpus} with planted {_listed(images.planted)}")

    outliers = folder / "outliers.h5"
    curate(images, outliers, seed)

    common: dict[str, Any] = {"id": str(images.id), "model": MODEL, "seed": seed, "device": device}
    base = pretrain(PretrainConfig(epochs=PRETRAIN_EPOCHS, batch_size=64, **common), folder / "pretrained")
    settings: dict[str, Any] = {
        "checkpoint": base,
        "epochs": TUNE_EPOCHS,
        "lr": TUNE_LR,
        "batch_size": 64,
        "outlier_batch_size": 128,
        **common,
    }
    runs = {
        "pretrained": base,
        "SR": tune(TuneConfig(**settings), folder / "sr"),
        "SROE": tune(TuneConfig(outliers=(str(outliers),), **settings), folder / "sroe"),
    }
    ood = {name: str(path) for name, path in images.ood.items()}
    results = {name: evaluate(run, list(ood.values()), device=device) for name, run in runs.items()}
    print_results(results, ood)
    Console().print(f"{time.monotonic() - start:.0f} s; everything is in {folder}", highlight=False, markup=False)
    return results


def curate(images: DemoImages, out: Path, seed: int) -> None:
    """Run ``curate build`` as a user would: the two commands meet in a file, not in code."""
    command = ["build", "--source", str(images.corpus), "--id", str(images.id), "--size", str(OUTLIERS)]
    command += ["--exclude-labels", str(images.exclusions), "--seed", str(seed), "--out", str(out)]
    run_curate(*command, shown=True)


def print_results(results: dict[str, Any], ood: dict[str, str]) -> None:
    """One table: for each OOD set and classifier ID accuracy and the metrics of the energy score."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="energy score, per cent", title_justify="left")
    table.add_column("OOD set")
    table.add_column("classifier")
    for heading in ("ID accuracy", "FPR95", "AUROC", "AUPR-in", "AUPR-out"):
        table.add_column(heading, justify="right")
    for name in [*ood, "mean"]:
        for number, (classifier, result) in enumerate(results.items(), start=1):
            entry = result["mean"] if name == "mean" else result["ood"][ood[name]]["scores"]
            cells = [f"{100 * entry['energy'][metric]:.2f}" for metric in METRICS]
            accuracy = f"{100 * result['id_accuracy']:.2f}"
            first = name if number == 1 else ""
            table.add_row(first, classifier, accuracy, *cells, end_section=number == len(results))
    console = Console()
    console.print(table)
    convention = next(iter(results.values()))["convention"]
    console.print(f"FPR95 {convention['name']}: {convention['fpr95']}", highlight=False, markup=False)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
