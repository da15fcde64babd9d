"""The run folder: where a run lives, and its record.

    config.yaml         every setting, resolved
    run.json            what it ran on: fingerprints of the images, starting weights, versions, device, precision
    metrics.jsonl       one line a log interval
    checkpoints/step-N  the newest checkpoint (train.checkpoints)
    model.safetensors   the trained classifier; a run that has it is finished

Files are written beside their final name and renamed.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from srood import __version__
from srood.datasets import Images
from srood.errors import InputError
from srood.files import write_text, writing
from srood.locks import LOCK, locked
from srood.models.weights import MODEL_FILE, WeightsInfo
from train import checkpoints
from train.config import CONFIG_FILE, AnyConfig, TuneConfig, config_values, read_config
from train.devices import describe_device
from train.id_sets import id_record
from train.plan import Plan
from train.reporting import say

RUNS = Path("runs")
RECORD_FILE = "run.json"
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
        _check_free(out)
        return out
    model = config.model.replace(":", "-").replace("/", "-")
    name = f"{Path(config.id).name}-{model}-{config.workflow}-{ending or f's{config.seed}'}"
    folder, number = RUNS / name, 1
    while not _is_free(folder):
        if not finished(folder):
            raise InputError(
                f"{folder}: holds a run that is not finished; continue it with `srood train --resume {folder}`, "
                "remove it, or give --out"
            )
        number += 1
        folder = RUNS / f"{name}-{number}"
    return folder


def _check_free(out: Path) -> None:
    if not _is_free(out):
        raise InputError(f"--out {out}: is not empty; choose another folder, or continue it with --resume {out}")


def _is_free(folder: Path) -> bool:
    """Whether nothing is in the place of a run, or what one leaves that ended before its first checkpoint was there."""
    if not folder.is_dir():
        return not folder.exists()
    first = {RECORD_FILE, CONFIG_FILE}
    remains = {LOCK, "checkpoints", *first, *(f"{name}.partial" for name in first)}
    return {path.name for path in folder.iterdir()} <= remains and not any(folder.glob("checkpoints/step-*"))


@contextmanager
def new_run(run: Path) -> Iterator[None]:
    """Hold the lock of the folder of a new run while it trains.

    Raises:
        InputError: another process trains there or has just done so, or the disk is full.
    """
    run.mkdir(parents=True, exist_ok=True)
    with locked(run, within=True), writing(run, advice="free space, then run the same command again"):
        _check_free(run)
        yield


def create(
    run: Path,
    config: AnyConfig,
    record: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    info: WeightsInfo,
) -> None:
    """Fill a run folder with its record and the weights it starts from, as the checkpoint of step 0."""
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / RECORD_FILE, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    write_text(run / CONFIG_FILE, yaml.safe_dump(config_values(config), sort_keys=False, allow_unicode=True))
    checkpoints.save(run, 0, tensors, info, {"step": 0})


def read_record(run: Path) -> dict[str, Any]:
    """What run.json says.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = run / RECORD_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); is {run} a run folder?") from error
    entries = [record.get("id"), *(record.get("outliers") or [])] if _is_record(record) else [None]
    if not all(isinstance(entry, dict) and isinstance(entry.get("fingerprint"), str) for entry in entries):
        raise InputError(f"{path}: is not the record of a run; restore it, or start the run again")
    return record


def _is_record(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("outliers", []), list)


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
    not cut short by `max_steps` unless the run is. Of several seeds in one folder it is the one of the run's own seed.
    """
    found = []
    for path in (*RUNS.glob(f"*/{RECORD_FILE}"), *RUNS.glob(f"*/seed-*/{RECORD_FILE}")):
        run = path.parent
        if not is_finished(run):
            continue
        try:
            if _can_start(run, config, id_fingerprint):
                found.append(run)
        except InputError as error:  # of another program, or damaged: no reason to stop
            say(f"{run}: is passed over ({error})")
    if not found:
        return None
    newest = max(found, key=lambda run: (run / MODEL_FILE).stat().st_mtime_ns)
    beside = [run for run in found if newest.parent != RUNS and run.parent == newest.parent]
    return next((run for run in beside if read_config(run).seed == config.seed), newest)


def _can_start(run: Path, config: TuneConfig, id_fingerprint: str) -> bool:
    record = read_record(run)
    key = (record.get("workflow"), record.get("model"), record.get("id", {}).get("fingerprint"))
    if key != ("pretrain", config.model, id_fingerprint) or not held_out_alike(run / MODEL_FILE, config):
        return False
    return read_config(run).max_steps in (None, config.max_steps)


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
