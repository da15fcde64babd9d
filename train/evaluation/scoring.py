"""Every score of every image of an evaluation, from the outputs of one pass over each set."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from srood.errors import InputError
from srood.posthoc import POSTHOC, fit
from srood.progress import progress_bar
from srood.scores import ODIN, SCORES, Score
from train.evaluation.eval_images import EvalImages, ImageSet
from train.evaluation.outputs import Outputs
from train.evaluation.passes import Passes
from train.evaluation.score_files import ScoresOf


def score_images(
    passes: Passes, images: EvalImages, names: Sequence[str], required: Collection[str]
) -> tuple[Outputs, ScoresOf, dict[str, ScoresOf], dict[str, str]]:
    """Score the ID test images and every OOD set.

    Args:
        passes: the classifier
        images: the image sets
        names: scores, as `srood.posthoc.choose` gives them
        required: those that were asked for by name, and not as one of ``all``

    Returns:
        the outputs of the ID test images, their scores, the scores of each OOD set, and the reasons for scores that
        this classifier cannot have.

    Raises:
        InputError: outputs that are not finite, or a required score that cannot be fitted.
    """
    sets: dict[str, ImageSet] = {"": images.test, **images.ood}  # "" is no spec
    outputs = {name: passes.outputs(each) for name, each in sets.items()}
    functions, failed = _functions(passes, images, names, required)
    scores: dict[str, ScoresOf] = {name: {} for name in sets}
    with progress_bar("scores") as progress:
        task = progress.add_task("scoring", total=len(functions), note="")
        for score, function in functions.items():
            progress.update(task, note=score)
            try:
                # in float64: softmax in float32 is 1 for many ID images, and the ties change MSP's AUROC by 0.02 %
                of_score = {name: function(z.double(), f.double()).numpy() for name, (z, f) in outputs.items()}
            except InputError as error:
                if score in required:
                    raise
                failed[score] = str(error)
            else:
                for name, values in of_score.items():
                    scores[name][score] = values
            progress.advance(task)
    if ODIN in names:
        try:
            of_odin = {name: passes.odin_scores(each).numpy() for name, each in sets.items()}
        except InputError as error:
            if ODIN in required:
                raise
            failed[ODIN] = str(error)
        else:
            for name, values in of_odin.items():
                scores[name][ODIN] = values
    if not scores[""]:
        raise InputError(f"--score: none of the scores can be had; {next(iter(failed.values()))}")
    ordered = {name: {s: found[s] for s in names if s in found} for name, found in scores.items()}
    return outputs[""], ordered.pop(""), ordered, failed


def _functions(
    passes: Passes, images: EvalImages, names: Sequence[str], required: Collection[str]
) -> tuple[dict[str, Score], dict[str, str]]:
    functions: dict[str, Score] = {name: SCORES[name] for name in names if name in SCORES}
    posthoc = [name for name in names if name in POSTHOC]
    failed: dict[str, str] = {}
    training = passes.outputs(images.train) if images.train is not None else None
    labels = torch.from_numpy(images.train.images.labels) if images.train is not None else None
    with progress_bar("scores") as progress:
        task = progress.add_task("fitting", total=len(posthoc), note="", visible=bool(posthoc))
        for name in posthoc:
            progress.update(task, note=name)
            try:
                functions[name] = fit(
                    name,
                    passes.subject.classifier.fc,
                    training.logits if training and POSTHOC[name].fitted else None,
                    training.features if training and POSTHOC[name].fitted else None,
                    labels if POSTHOC[name].fitted else None,
                )
            except InputError as error:
                if name in required:
                    raise
                failed[name] = str(error)
            progress.advance(task)
    return {name: functions[name] for name in names if name in functions}, failed
