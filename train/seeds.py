"""The same run over several seeds: a folder of runs that is evaluated and compared as one.

GROUP/seeds.json   the seeds and the settings that the runs share
GROUP/seed-N       a run folder each
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from srood.errors import InputError
from srood.files import write_text
from train import runs
from train.config import AnyConfig, PretrainConfig, TuneConfig, make_config
from train.pretrain import pretrain
from train.reporting import say
from train.signals import Stopped
from train.tune import resume, tune

SEEDS_FILE = "seeds.json"


def run_seeds(config: AnyConfig, count: int, out: Path | None = None) -> Path:
    """Train with `count` seeds in a row, from the configuration's own on.

    Args:
        config: of every run but for its seed
        count: how many runs
        out: the folder of the runs; by default one under ``runs``

    Returns:
        the folder.

    Raises:
        InputError: as `tune` and `pretrain`.
    """
    seeds = list(range(config.seed, config.seed + count))
    folder = runs.choose_folder(config, out, f"seeds-{seeds[0]}-{seeds[-1]}", _all_finished)
    folder.mkdir(parents=True, exist_ok=True)
    # what was given only: a default may depend on what a run starts from
    given = {"workflow": config.workflow, **config.model_dump(mode="json", exclude_unset=True)}
    document = {"seeds": seeds, "runs": [f"seed-{seed}" for seed in seeds], "config": given}
    try:
        write_text(folder / SEEDS_FILE, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        return continue_seeds(folder)
    except InputError:
        if not any(path.is_dir() for path in folder.iterdir()):  # nothing was started: leave nothing
            (folder / SEEDS_FILE).unlink()
            folder.rmdir()
        raise


def continue_seeds(folder: Path, device: str | None = None) -> Path:
    """Start or continue the runs of a folder that are not finished, on their own device or another.

    Raises:
        InputError: seeds.json is damaged, or as `tune`, `pretrain` and `resume`.
        Stopped: a run was told to stop; the folder can be continued.
    """
    document = read_seeds(folder)
    values = dict(document["config"])
    kind = PretrainConfig if values.pop("workflow") == "pretrain" else TuneConfig
    values |= {} if device is None else {"device": device}
    # what is wrong with one is found before the first trains
    configs = [make_config(kind, {**values, "seed": seed}) for seed in document["seeds"]]
    for seed, name, config in zip(document["seeds"], document["runs"], configs, strict=True):
        run = folder / name
        say(f"seed {seed} of {document['seeds'][0]} to {document['seeds'][-1]}")
        try:
            if run.is_dir() and any(run.iterdir()):
                resume(run, device)
            elif isinstance(config, TuneConfig):
                start = config.checkpoint
                if start is not None and is_group(start):
                    config = config.model_copy(update={"checkpoint": start / name})
                tune(config, run)
            else:
                pretrain(config, run)
        except Stopped as stopped:
            raise Stopped(folder, stopped.step, stopped.number) from None
    return folder


def is_group(folder: Path) -> bool:
    """Whether a folder holds the runs of several seeds."""
    return (folder / SEEDS_FILE).is_file()


def read_seeds(folder: Path) -> dict[str, Any]:
    """What seeds.json says.

    Raises:
        InputError: it is damaged.
    """
    path = folder / SEEDS_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {name: document[name] for name in ("seeds", "runs", "config")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove the folder and start again") from error


def _all_finished(folder: Path) -> bool:
    return is_group(folder) and all(runs.is_finished(folder / name) for name in read_seeds(folder)["runs"])
