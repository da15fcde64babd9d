"""Evaluation: ID accuracy, and every score's metrics on every OOD set, from one forward pass over each image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from srood.files import check_folder, write_text
from srood.posthoc import needs_id_images
from train import runs
from train.devices import describe_device, resolve_device, resolve_precision
from train.evaluation.eval_images import EvalImages, read_images
from train.evaluation.eval_tables import eval_csv
from train.evaluation.ood_sets import OodSet, find_sets
from train.evaluation.passes import Passes
from train.evaluation.plots import plot_histograms, plot_roc
from train.evaluation.protocol import PAPER_OOD, Settings, settings_of
from train.evaluation.results import combine_seeds, result_of
from train.evaluation.score_files import RESULT_FILE, SCORES_FILE, write_scores
from train.evaluation.scoring import score_images
from train.evaluation.subject import Subject, open_subjects
from train.id_sets import normalisation

CACHE = "cache"  # folder of outputs, in the run


@dataclass(frozen=True)
class Machine:
    """Where and how the passes are made."""

    device: torch.device
    precision: str
    batch_size: int


def evaluate(
    path: Path,
    ood: Sequence[str] = (),
    *,
    model: str | None = None,
    id_set: str | None = None,
    out: Path | None = None,
    protocol: str | None = None,
    convention: str | None = None,
    tpr: float = 0.95,
    scores: Sequence[str] = ("default",),
    draws: int | None = None,
    draw_size: int | None = None,
    draw_seed: int | None = None,
    device: str = "auto",
    precision: str = "32-true",
    batch_size: int = 500,
    cache: bool = True,
    plots: bool = True,
) -> dict[str, Any]:
    """Evaluate a classifier, or a seed group of them, as an OOD detector, and write what is found.

    Writes eval.json, eval.csv, eval-scores.npz (each image's scores, float32), eval-scores.png and eval-roc.png; for a
    seed group these for each run, and eval.json and eval.csv of means over the seeds.

    Args:
        path: a run folder, a weights file, or a seed group
        ood: specs of OOD sets, and names of groups of sets (manifests/ood)
        model, id_set: architecture and ID set; a run knows its own, a weights file may
        out: folder to write into; by default the run, or ``runs/eval-<stem>`` for a weights file
        protocol, convention, tpr, scores, draws, draw_size, draw_seed: see `train.evaluation.protocol.settings_of`
        device, precision, batch_size: of the forward pass
        plots: whether eval-scores.png and eval-roc.png are drawn
        cache: whether outputs are taken from and kept in the folder ``cache`` of the run (of `out` for a weights file)

    Returns:
        what eval.json holds (shares in [0, 1], by OOD set and score under ``ood``, their plain means under ``mean``),
        and under ``out`` the folder written into. See docs/evaluation.md.

    Raises:
        InputError: a path, set or option that cannot be used; before any forward pass.
    """
    # everything that can be wrong is found before the first image is read, or at least before the forward pass
    settings = settings_of(protocol, convention, tpr, scores, draws, draw_size, draw_seed)
    folder = out or (path if path.is_dir() else runs.RUNS / f"eval-{path.stem}")
    check_folder(folder, "--out ")
    if protocol == "paper" and not ood:
        ood = PAPER_OOD
    on = resolve_device(device)
    machine = Machine(on, resolve_precision(precision, on), batch_size)
    subjects = open_subjects(path, model, id_set)
    sets = find_sets(ood, next(iter(subjects.values())).id_set)
    images = read_images(list(subjects.values()), sets, needs_id_images(settings.scores))

    results: dict[str, dict[str, Any]] = {}
    for name, subject in subjects.items():
        kept = (path / name if path.is_dir() else folder) / CACHE if cache else None
        results[name] = _evaluate_one(subject, images, sets, settings, machine, kept, folder / name, plots)
    if list(results) == [""]:
        return {**results[""], "out": str(folder)}
    combined = combine_seeds(path, results)
    _write_result(folder, combined)
    return {**combined, "out": str(folder)}


def _evaluate_one(
    subject: Subject,
    images: EvalImages,
    sets: Sequence[OodSet],
    settings: Settings,
    machine: Machine,
    cache: Path | None,
    folder: Path,
    plots: bool,
) -> dict[str, Any]:
    """Passes, scores, figures and files of one classifier."""
    mean, std = normalisation(subject.id_set, subject.info)
    passes = Passes(subject, mean, std, machine.device, machine.precision, machine.batch_size, cache)
    outputs, id_scores, ood_scores, failed = score_images(passes, images, settings.scores, settings.required)
    ran = {
        "device": describe_device(machine.device),
        "precision": machine.precision,
        "versions": runs.versions(),
    }
    result = result_of(subject, passes, images, sets, settings, outputs, id_scores, ood_scores, failed) | ran

    folder.mkdir(parents=True, exist_ok=True)
    _write_result(folder, result)
    write_scores(folder / SCORES_FILE, id_scores, ood_scores)
    if not plots:
        return result
    shown = "energy" if "energy" in id_scores else next(iter(id_scores))
    plotted = {name: scores[shown] for name, scores in ood_scores.items()}
    plot_histograms(id_scores[shown], plotted, shown, folder / "eval-scores.png")
    plot_roc(id_scores[shown], plotted, shown, folder / "eval-roc.png", settings.tpr)
    return result


def _write_result(folder: Path, result: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / RESULT_FILE, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "eval.csv", eval_csv(result))
