"""The checkpoints of a run: written whole, checked before they are read, the newest only kept.

    checkpoints/step-N/weights.safetensors   the classifier
    checkpoints/step-N/state.pt              optimiser and step
    checkpoints/step-N/best.safetensors      the weights that did best on held-out images, where there are such
    checkpoints/step-N/sha256.json           hashes of the others

A folder is written beside its final name and renamed.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from srood.errors import InputError
from srood.files import sync_folder, write_text
from srood.hashes import file_sha256
from srood.models.weights import WeightsInfo, save_weights
from train.config import CONFIG_FILE

WEIGHTS_FILE, BEST_FILE = "weights.safetensors", "best.safetensors"
HASHES_FILE = "sha256.json"


def save(
    run: Path,
    step: int,
    tensors: dict[str, torch.Tensor],
    info: WeightsInfo,
    state: dict[str, Any],
    best: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write the checkpoint of a step, then remove older ones. `state` holds tensors and plain values only.

    `best` are the weights that did best on the held-out images so far.

    Raises:
        InputError: the run was removed while it trained; it is not made anew without its settings.
    """
    if not (run / CONFIG_FILE).is_file():
        raise InputError(f"{run}: was removed while it was written; start the run again")
    folder = run / "checkpoints" / f"step-{step:08d}"
    if not folder.is_dir():
        partial = folder.with_name(f"partial-{folder.name}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_weights(partial / WEIGHTS_FILE, tensors, info)
        if best is not None:
            save_weights(partial / BEST_FILE, best, info)
        with open(partial / "state.pt", "wb") as file:
            file.write(_bytes_of(state))
            file.flush()
            os.fsync(file.fileno())
        hashes = {path.name: file_sha256(path) for path in sorted(partial.iterdir())}
        write_text(partial / HASHES_FILE, json.dumps(hashes, indent=2) + "\n")
        os.replace(partial, folder)
        sync_folder(folder.parent)  # before the older ones go
    for other in folder.parent.iterdir():
        if other != folder and other.is_dir() and other.name.startswith(("step-", "partial-step-")):
            shutil.rmtree(other)  # what else is there, a file manager's file say, is not ours
    return folder


def _bytes_of(state: dict[str, Any]) -> memoryview:
    buffer = io.BytesIO()  # torch itself does not say why a file cannot be written
    torch.save(state, buffer)
    return buffer.getbuffer()


def newest(run: Path) -> Path:
    """The newest complete checkpoint folder.

    Raises:
        InputError: the run has none.
    """
    found = sorted(path for path in (run / "checkpoints").glob("step-*") if path.is_dir())
    if not found:
        raise InputError(f"{run}: holds no checkpoint to continue from; start the run again")
    return found[-1]


def check(folder: Path) -> None:
    """Check that the files of a checkpoint are those that were written.

    Raises:
        InputError: one is missing or was altered, or their hashes are.
    """
    path = folder / HASHES_FILE
    try:
        hashes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); start the run again") from error
    found = {file.name for file in folder.iterdir()} - {path.name}
    if not isinstance(hashes, dict) or found != set(hashes):
        raise InputError(f"{folder}: its files are not those of {path.name}; restore them, or start the run again")
    for name in sorted(found):
        if not (folder / name).is_file() or file_sha256(folder / name) != hashes[name]:
            raise InputError(f"{folder / name}: was altered since it was written; restore it, or start the run again")


def newest_step(run: Path) -> int:
    """The step of the newest checkpoint."""
    return int(newest(run).name.removeprefix("step-"))


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
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly anything on a damaged file
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); start the run again") from error
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise InputError(f"{path}: is not the state of a run; start the run again")
    return state
