"""Passes over images between the steps of a run: choosing outliers, and measuring the held-out images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from srood.models.weights import Triple
from srood.scores import SCORES
from train.batches import normalise
from train.shares import joined, share_of
from train.steps import Stepper
from train.training_images import TrainingImages

BATCH = 500


def outputs(model: nn.Module, images: Tensor, normalisation: tuple[Triple, Triple], fabric: Fabric) -> list[Tensor]:
    """Logits (N, C) and features (N, D) of (N, H, W, 3) uint8 images in evaluation mode, on the run's device.

    The processes of a run share the work; each gets all rows.
    """
    share = share_of(len(images), 1, 0, fabric)
    own = images[share.own.start : share.own.stop]
    collected: list[tuple[Tensor, Tensor]] = []
    model.eval()
    with torch.no_grad():
        for batch in own.split(BATCH) if len(own) else [own]:
            collected.append(model(normalise(batch.to(fabric.device), *normalisation), return_features=True))
        result = [joined(torch.cat(parts), (share,), fabric) for parts in zip(*collected, strict=True)]
    model.train()
    return result


def select(
    model: nn.Module,
    pools: Sequence[Tensor],
    band: tuple[str, float, float],
    normalisation: tuple[Triple, Triple],
    fabric: Fabric,
) -> list[Tensor]:
    """The outliers that an epoch draws from: those whose score lies between two quantiles of their set.

    Choosing informative outliers anew each epoch is from NTOM (Chen et al., "ATOM", ECML 2021); a band rather than the
    hardest, as these hold what ID images slipped into the set.

    Args:
        model: the classifier as it stands
        pools: images of each outlier set, (M, H, W, 3) uint8
        band: name of a score, and two quantiles of it: 0 is most like ID

    Returns:
        for each set the row numbers chosen, ascending, (m,) int64 on the CPU; at least one.
    """
    score, low, high = band
    chosen = []
    for images in pools:
        values = SCORES[score](*(part.double().cpu() for part in outputs(model, images, normalisation, fabric)))
        first = min(int(low * len(values)), len(values) - 1)
        last = max(first + 1, round(high * len(values)))
        chosen.append(values.argsort(stable=True)[first:last].sort().values)
    return chosen


def validate(stepper: Stepper, data: TrainingImages) -> dict[str, float]:
    """The method's own loss and the accuracy on the held-out images and outliers.

    Returns:
        ``validation_loss`` and ``validation_accuracy``.
    """
    assert data.held_out is not None and data.held_out_labels is not None
    labels = data.held_out_labels.to(stepper.device)
    rows = [outputs(stepper.model, data.held_out, stepper.id_scaling, stepper.fabric)]
    rows += [outputs(stepper.model, p, stepper.outlier_scaling, stepper.fabric) for p in data.held_out_outliers]
    logits, features = (torch.cat(parts) for parts in zip(*rows, strict=True))
    with torch.no_grad():
        loss = stepper.loss_of(logits, features, labels)
    accuracy = (logits[: len(labels)].argmax(dim=1) == labels).float().mean()
    return {"validation_loss": float(loss.total), "validation_accuracy": float(accuracy)}
