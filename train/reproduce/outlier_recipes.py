"""The outlier sets of an experiment: what they are made of, and making them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srood import datasets
from srood.errors import InputError
from srood.hashes import pixel_sha256
from srood.outliers import write_set
from train.curate_command import option_words, run_curate
from train.reproduce import made_sets
from train.reproduce.experiments import OutlierRecipe
from train.reproduce.inputs import Inputs

START = "{start}"  # in a recipe: the weights that tuning starts from
OOD = "ood"  # in a recipe's `protect`: the OOD sets of the experiment


@dataclass(frozen=True)
class OutlierPlan:
    """An outlier set to be made.

    Attributes:
        path: of its manifest
        options: of `curate build`, by name; where `curated` is False, those of them that drawing rows needs are used
        fingerprint: of all that it depends on
        made: names of the made sets among them
    """

    path: Path
    options: dict[str, Any]
    curated: bool
    fingerprint: str
    made: tuple[str, ...]


def plan_outliers(
    name: str,
    recipe: OutlierRecipe,
    inputs: Inputs,
    *,
    id_set: str,
    image_size: int,
    seed: int,
    ood: dict[str, str],
    start: tuple[Path, str],
) -> OutlierPlan:
    """Settle what a recipe means; nothing is read but to see that the corpus is there.

    Args:
        name: of the recipe
        inputs: the set goes into ``outliers`` in their folder
        ood: names and places of the OOD sets that can be had, for a recipe that protects them
        start: weights that tuning starts from, and a fingerprint of them

    Raises:
        InputError: the corpus cannot be had.
    """

    def placed(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return str(inputs.place(value, id_set)) if made_sets.is_made(value) else value.replace(START, str(start[0]))

    guarded = list(recipe.build.get("protect", ()))
    protect = [spec for one in guarded for spec in (ood.values() if one == OOD else [placed(one)])]
    named = [recipe.source, recipe.leave_out, *recipe.build.values(), *guarded, *(ood if OOD in guarded else ())]
    made = [one for one in dict.fromkeys(v for v in named if isinstance(v, str)) if made_sets.is_made(one)]
    number = seed if recipe.seeded else 0
    settings: dict[str, Any] = {key: placed(value) for key, value in recipe.build.items() if key != "protect"}
    left_out = recipe.leave_out and Path(placed(recipe.leave_out))
    depends = {
        "recipe": recipe.model_dump(),
        "id": id_set,
        "image_size": image_size,
        "seed": number,
        "ood": sorted(ood) if protect else [],
        "start": start[1] if START in str(recipe.build) else "",
        "corpus": inputs.identity(recipe.source, id_set),
        "made": [inputs.identity(one, id_set) for one in made],
    }
    fingerprint = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
    path = inputs.folder / "outliers" / f"{name}-{fingerprint[:10]}" / "outliers.h5"
    options: dict[str, Any] = {
        "source": placed(recipe.source),
        "size": recipe.size,
        "id": placed(id_set),
        "out": path,
        "image_size": image_size,
        "seed": number,
        "protect": protect,
        "exclude_indices": made_sets.rows_file(left_out) if left_out else None,
        "strict_size": True,
        **settings,
    }
    return OutlierPlan(path, options, recipe.curated, fingerprint, tuple(made))


def make_outliers(plan: OutlierPlan) -> None:
    """Make an outlier set where it is not there yet; its made inputs are.

    Raises:
        InputError: the corpus gives too few rows, or something in it cannot be used.
    """
    plan.path.parent.mkdir(parents=True, exist_ok=True)
    if plan.path.exists():
        return
    if plan.curated:
        run_curate("build", *option_words(plan.options))
    else:
        _write_random(plan)


def _write_random(plan: OutlierPlan) -> None:
    """Rows of the corpus at random, in one shard: what a user has who does not curate."""
    source, size, seed = (plan.options[name] for name in ("source", "size", "seed"))
    image_size, left_out = (plan.options[name] for name in ("image_size", "exclude_indices"))
    images = datasets.load_images(source, image_size)
    rows = np.random.default_rng(seed).permutation(len(images.labels))
    if left_out is not None:
        rows = rows[~np.isin(images.rows[rows], np.loadtxt(left_out, dtype=np.int64, ndmin=1))]
    rows = rows[:size]
    if len(rows) < size:
        raise InputError(f"asked for {size:,} outliers at random, {source} gives {len(rows):,}")
    columns = {
        "image": images.images[rows],
        "key": np.array([images.keys[row].encode() for row in rows]),
        "sha256": np.array([pixel_sha256(images.images[row]).encode() for row in rows]),
        "label": images.labels[rows],
        "id_similarity": np.zeros(len(rows), np.float32),
        "id_class": np.full(len(rows), -1, np.int64),
    }
    scratch = plan.path.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    manifest = {"config": {"image_size": image_size, "size": size, "seed": seed}}
    write_set(plan.path, iter([columns]), 1, manifest, scratch)
    scratch.rmdir()
