"""What an evaluation says, as plain values: the content of eval.json, for one classifier and for a seed group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from srood.id_metrics import ECE_BINS, aurc, ece
from srood.metrics import describe_convention, fpr_name
from train.evaluation.eval_images import EvalImages, ImageSet
from train.evaluation.measures import Metrics, average, deviation, over_sets, reduce, samples_of
from train.evaluation.ood_sets import OodSet
from train.evaluation.outputs import Outputs
from train.evaluation.passes import Passes
from train.evaluation.protocol import Settings
from train.evaluation.score_files import ScoresOf
from train.evaluation.subject import Subject
from train.id_sets import id_record

SAMPLE = "sample standard deviation (n - 1)"


def result_of(
    subject: Subject,
    passes: Passes,
    images: EvalImages,
    sets: Sequence[OodSet],
    settings: Settings,
    outputs: Outputs,
    id_scores: ScoresOf,
    ood_scores: Mapping[str, ScoresOf],
    failed: Mapping[str, str],
) -> dict[str, Any]:
    """The figures of one classifier.

    Args:
        outputs: of the ID test images
        id_scores, ood_scores: of the ID test images and of each OOD set, (N,) float64 by score
        failed: reasons for scores that could not be had
    """
    labels = images.test.images.labels
    correct = outputs.logits.argmax(dim=1).numpy() == labels
    draws = settings.draws.for_id_set(len(labels)) if settings.draws else None
    samples = {
        spec: {
            score: samples_of(id_scores[score], values, settings.convention, settings.tpr, draws)
            for score, values in scores.items()
        }
        for spec, scores in ood_scores.items()
    }
    entries: dict[str, Any] = {}
    for entry in sets:
        if entry.spec in samples:
            means, deviations = reduce(samples[entry.spec])
            record = {**_set_record(images.ood[entry.spec]), "groups": list(entry.groups), "scores": means}
            entries[entry.spec] = record | ({"std": deviations} if deviations else {})
    missing = {
        entry.spec: {"groups": list(entry.groups), "reason": images.missing[entry.spec]}
        for entry in sets
        if entry.spec in images.missing
    }
    groups = {
        group: _mean_of([entry for entry in sets if group in entry.groups], samples)
        for group in dict.fromkeys(group for entry in sets for group in entry.groups)
    }
    everything = _mean_of(sets, samples)
    metric = fpr_name(settings.tpr)
    id_part = id_record(images.test.images, passes.subject.id_set, passes.mean, passes.std) | {
        "accuracy": float(correct.mean()),
        "ece": ece(outputs.logits.double().numpy(), labels),
        "ece_bins": ECE_BINS,
        "aurc": {score: aurc(values, correct) for score, values in id_scores.items()},
    }
    return {
        "weights": {"file": str(subject.weights), "sha256": passes.sha256},
        "model": subject.model,
        "id": id_part,
        "id_accuracy": id_part["accuracy"],
        "convention": {
            "name": settings.convention,
            "tpr": settings.tpr,
            "metric": metric,
            metric: describe_convention(settings.convention, settings.tpr),
        },
        "draws": draws and {"number": draws.number, "size": draws.size, "seed": draws.seed},
        "deviation": draws and {"over": "draws", "number": draws.number, "kind": SAMPLE},
        "sets": [entry.spec for entry in sets],
        "ood": entries,
        "missing": missing,
        "failed_scores": dict(failed),
        "mean": everything["mean"],
        "mean_std": everything["std"],
        "mean_of": {"sets": len(entries), "of": len(sets)},
        "groups": groups,
    }


def combine_seeds(path: Path, results: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Means and deviations over the runs of a seed group, and the results of each under ``runs``.

    Only scores that every run has are combined.
    """
    runs = list(results.values())
    first = runs[0]
    scores = [score for score in first["mean"] if all(score in run["mean"] for run in runs)]
    failed = {score: reason for run in runs for score, reason in run["failed_scores"].items()}

    def combined(values: Sequence[Mapping[str, Metrics]]) -> dict[str, dict[str, Metrics]]:
        by_score = {score: [value[score] for value in values] for score in scores}
        return {
            "mean": {score: average(each) for score, each in by_score.items()},
            "std": {score: deviation(each) for score, each in by_score.items()},
        }

    entries = {}
    for spec, entry in first["ood"].items():
        both = combined([run["ood"][spec]["scores"] for run in runs])
        entries[spec] = {**entry, "scores": both["mean"], "std": both["std"]}
    groups = {}
    for group, entry in first["groups"].items():
        both = combined([run["groups"][group]["mean"] for run in runs]) if entry["mean"] else {}
        groups[group] = {**entry, **both}
    of_id = [{"accuracy": run["id"]["accuracy"], "ece": run["id"]["ece"]} for run in runs]
    risks = [{score: run["id"]["aurc"][score] for score in scores} for run in runs]
    everything = combined([run["mean"] for run in runs])
    return {
        **first,
        "weights": {"file": str(path), "sha256": None},
        "id": {
            **first["id"],
            **average(of_id),
            "aurc": average(risks),
            "deviation": {**deviation(of_id), "aurc": deviation(risks)},
        },
        "id_accuracy": average(of_id)["accuracy"],
        "id_accuracy_std": deviation(of_id)["accuracy"],
        "deviation": {"over": "seeds", "number": len(runs), "kind": SAMPLE},
        "ood": entries,
        "failed_scores": failed,
        "mean": everything["mean"],
        "mean_std": everything["std"],
        "groups": groups,
        "runs": dict(results),
    }


def _mean_of(sets: Sequence[OodSet], samples: Mapping[str, Mapping[str, list[Metrics]]]) -> dict[str, Any]:
    """Plain means over those of the sets that could be had; ``mean`` is empty where none could."""
    found = [samples[entry.spec] for entry in sets if entry.spec in samples]
    names = [entry.spec for entry in sets]
    part = {"sets": [spec for spec in names if spec in samples], "missing": [s for s in names if s not in samples]}
    if not found:
        return {**part, "mean": {}, "std": None}
    means, deviations = reduce({score: over_sets(found, score) for score in found[0]})
    return {**part, "mean": means, "std": deviations}


def _set_record(images: ImageSet) -> dict[str, Any]:
    found = images.images
    return {
        "spec": found.spec,
        "fingerprint": found.fingerprint,
        "images": len(found.labels),
        "skipped": found.skipped,
    }
