"""The run folder: where a run lives, its record, and its checkpoints.

    config.yaml         every setting, resolved
    run.json            what it ran on: fingerprints of the images, starting weights, versions, device, precision
    metrics.jsonl       one line a log interval
    checkpoints/step-N  weights.safetensors, state.pt (optimiser, step) and best.safetensors; the newest only
    model.safetensors   the trained classifier; a run that has it is finished

Files and checkpoint folders are written beside their final name and renamed.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file

from srood import __version__
from srood.datasets import Images
from srood.errors import InputError
from srood.files import sync_folder, write_text
from srood.models.weights import MODEL_FILE, WeightsInfo, save_weights
from train.config import CONFIG_FILE, AnyConfig, TuneConfig, config_values, read_config
from train.devices import describe_device
from train.id_sets import id_record
from train.plan import Plan

RUNS = Path("runs")
RECORD_FILE = "run.json"
WEIGHTS_FILE, BEST_FILE = "weights.safetensors", "best.safetensors"
METRICS_FILE = "metrics.jsonl"


def is_finished(run: Path) -> bool:
    """Whether a run has its final weights."""
    return (run / MODEL_FILE).is_file()


def choose_folder(
    config: AnyConfig, out: Path | None, ending: str = "", finished: Callable[[Path], bool] = is_finished
) -> Path:
    """Where a new run goes: `out`, or ``runs/<id>-<model>-<workflow>-s<seed>`` with a number if that is finished.

    `ending` stands in the place of ``s<seed>`` for the folder of several runs, and `finished` tells when that is done.

    Raises:
        InputError: `out` is not an empty or new folder, or the default folder holds an unfinished run.
    """
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"--out {out}: is not empty; choose another folder, or continue it with --resume {out}")
        return out
    model = config.model.replace(":", "-").replace("/", "-")
    name = f"{Path(config.id).name}-{model}-{config.workflow}-{ending or f's{config.seed}'}"
    folder, number = RUNS / name, 1
    while folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not finished(folder):
            raise InputError(
                f"{folder}: holds a run that is not finished; continue it with `srood train --resume {folder}`, "
                "remove it, or give --out"
            )
        number += 1
        folder = RUNS / f"{name}-{number}"
    return folder


def create(
    run: Path,
    config: AnyConfig,
    record: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    info: WeightsInfo,
) -> None:
    """Make a run folder with its record and the weights it starts from, as the checkpoint of step 0."""
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / RECORD_FILE, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    write_text(run / CONFIG_FILE, yaml.safe_dump(config_values(config), sort_keys=False, allow_unicode=True))
    save_checkpoint(run, 0, tensors, info, {"step": 0})


def read_record(run: Path) -> dict[str, Any]:
    """What run.json says.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = run / RECORD_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); is {run} a run folder?") from error


def save_checkpoint(
    run: Path,
    step: int,
    tensors: dict[str, torch.Tensor],
    info: WeightsInfo,
    state: dict[str, Any],
    best: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write the checkpoint of a step, then remove older ones. `state` holds tensors and plain values only.

    `best` are the weights that did best on the held-out images so far.
    """
    folder = run / "checkpoints" / f"step-{step:08d}"
    if not folder.is_dir():
        partial = folder.with_name(f"partial-{folder.name}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_weights(partial / WEIGHTS_FILE, tensors, info)
        if best is not None:
            save_weights(partial / BEST_FILE, best, info)
        with open(partial / "state.pt", "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, folder)
        sync_folder(folder.parent)  # before the older ones go
    for other in folder.parent.iterdir():
        if other.name != folder.name:
            shutil.rmtree(other)
    return folder


def newest_checkpoint(run: Path) -> Path:
    """The newest complete checkpoint folder.

    Raises:
        InputError: the run has none.
    """
    found = sorted((run / "checkpoints").glob("step-*"))
    if not found:
        raise InputError(f"{run}: holds no checkpoint to continue from; remove it and start the run again")
    return found[-1]


def newest_step(run: Path) -> int:
    """The step of the newest checkpoint."""
    return int(newest_checkpoint(run).name.removeprefix("step-"))


def load_best(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The weights that did best on the held-out images up to a checkpoint.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return load_file(checkpoint / BEST_FILE)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{checkpoint / BEST_FILE}: cannot be read ({error}); start the run again") from error


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Optimiser and step of a checkpoint. The file is read as data: no code in it is run.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = checkpoint / "state.pt"
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly anything on a damaged file
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); start the run again") from error


def find_weights(path: Path) -> Path:
    """The weights file of a run folder, or the file itself.

    Raises:
        InputError: no such path, not a run folder, or a run that is not finished.
    """
    if not path.exists():
        raise InputError(f"{path}: no such run folder or weights file; check the path")
    if path.is_file():
        return path
    if is_finished(path):
        return path / MODEL_FILE
    if (path / CONFIG_FILE).is_file():
        raise InputError(f"{path}: this run is not finished; continue it with `srood train --resume {path}`")
    raise InputError(f"{path}: is not a run folder (it holds no {MODEL_FILE})")


def find_pretrained(config: TuneConfig, id_fingerprint: str) -> Path | None:
    """The newest finished pretrained run under ``runs`` that a run can start from, or None.

    It is of the same model, on the ID images of a fingerprint, held out the images that the run would hold out, and was
    not cut short by `max_steps` unless the run is.
    """
    found = []
    for path in RUNS.glob(f"*/{RECORD_FILE}"):
        run = path.parent
        if is_finished(run):
            record = read_record(run)
            key = (record.get("workflow"), record.get("model"), record.get("id", {}).get("fingerprint"))
            fits = key == ("pretrain", config.model, id_fingerprint) and held_out_alike(run / MODEL_FILE, config)
            if fits and read_config(run).max_steps in (None, config.max_steps):
                found.append(((run / MODEL_FILE).stat().st_mtime_ns, run))
    return max(found)[1] if found else None


def held_out_alike(weights: Path, config: TuneConfig) -> bool:
    """Whether weights are of a run that held out the same images as a configuration does, and never saw them."""
    if not (weights.parent / CONFIG_FILE).is_file():
        return config.validation == 0
    earlier = read_config(weights.parent)
    if config.validation == 0:
        return earlier.validation == 0
    alike = (earlier.id, earlier.validation, earlier.seed) == (config.id, config.validation, config.seed)
    return alike and read_record(weights.parent).get("held_out_unseen") is True


def describe(
    config: AnyConfig, model: torch.nn.Module, images: Images, info: WeightsInfo, plan: Plan
) -> dict[str, Any]:
    """The record of a new run: what it trains, on what and where."""
    assert info.mean is not None and info.std is not None
    return {
        "workflow": config.workflow,
        "model": config.model,
        "parameters": sum(p.numel() for p in model.parameters()),
        "id": id_record(images, config.id, info.mean, info.std),
        "device": describe_device(torch.device(config.device)),
        "devices": config.devices,
        "precision": config.precision,
        "trained_on": plan.id_count,
        "steps_per_epoch": plan.epoch_steps,
        "steps": plan.total,
        "versions": versions(),
        "torch_threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    """Versions of what a result may depend on."""
    packages = ("torch", "lightning-fabric", "pytorch-ood", "numpy", "scikit-learn", "pillow")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"srood": __version__, "python": platform.python_version(), **found}
