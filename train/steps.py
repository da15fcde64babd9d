"""One optimiser step: the batch of a process, the forward pass, the loss of the joint batch, the gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor

from srood.errors import InputError
from srood.losses import Loss, LossParts
from srood.methods import make_loss
from srood.models import Classifier
from srood.models.weights import Triple
from train import batches
from train.batchnorm import choose_rows
from train.config import AnyConfig, TuneConfig
from train.outlier_pools import OutlierPools
from train.plan import StepRows
from train.shares import Share, joined, largest, share_of
from train.training_images import TrainingImages

IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def objective(config: AnyConfig) -> Loss:
    """The loss of a run: its method's, with the options that `tune` resolved; cross entropy while pretraining."""
    return make_loss(config.workflow, config.method_options) if isinstance(config, TuneConfig) else make_loss("ce")


class NotFinite(Exception):
    """The loss of a step is not finite; the message gives its parts."""


class Stepper:
    """The classifier, its optimiser and its images on the device of one process of a run.

    Attributes:
        classifier: the weights that are trained
        model: the same, as Fabric runs it
        id_scaling, outlier_scaling: mean and standard deviation that ID images and outliers are normalised with
    """

    def __init__(
        self,
        fabric: Fabric,
        config: AnyConfig,
        data: TrainingImages,
        classifier: Classifier,
        scaling: tuple[Triple, Triple],
    ) -> None:
        tuning = config if isinstance(config, TuneConfig) else None
        self.fabric, self.config, self.classifier, self.device = fabric, config, classifier, fabric.device
        self.loss_of = objective(config)
        self.images, self.labels = data.images.to(self.device), data.labels.to(self.device)
        self.outliers = OutlierPools(data.outliers, self.device)
        self.id_scaling = self.outlier_scaling = scaling
        self.outlier_padding = config.crop_padding
        if tuning is not None:
            self.outlier_scaling = IMAGENET if tuning.outlier_normalisation == "imagenet" else scaling
            if tuning.outlier_crop_padding is not None:
                self.outlier_padding = tuning.outlier_crop_padding
        id_only = tuning is not None and tuning.batch_norm == "id"
        self.norms = choose_rows(classifier, id_only, shared=fabric.world_size > 1)
        optimiser = torch.optim.SGD(
            classifier.parameters(),
            config.lr,
            config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.momentum > 0,
        )
        network = torch.compile(classifier) if config.compile else classifier
        self.model, self.optimiser = fabric.setup(network, optimiser)  # type: ignore[arg-type]
        self.model.train()

    def take(self, step: int, rows: StepRows, lr: float) -> dict[str, float]:
        """Take one step at a learning rate.

        Returns:
            ``loss``, its unweighted terms and ``id_accuracy``, over the batch of all processes.

        Raises:
            NotFinite: the loss is not finite; no weight was changed by this step.
            InputError: a batch is too small for the network.
        """
        config, fabric = self.config, self.fabric
        # dropout's random numbers are a function of seed, step and process, like all the others
        torch.manual_seed(batches.derived_seed(config.seed, batches.DROPOUT, step, fabric.global_rank))
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.zero_grad()
        numbers: dict[str, float] = {}
        # the last batch of an epoch may have fewer rows than parts
        parts = min(config.accumulate, len(rows.id), len(rows.outliers) if self.outliers.pools else len(rows.id))
        shares = [share_of(len(rows.outliers), parts, part, fabric) for part in range(parts)]
        for part, (others, outliers) in enumerate(zip(shares, self._outliers(rows, shares), strict=True)):
            ids = share_of(len(rows.id), parts, part, fabric)
            weight = len(ids.part) / ids.total
            last = part == parts - 1
            with fabric.no_backward_sync(self.model, enabled=fabric.world_size > 1 and not last):
                # one forward pass over ID images and outliers, so that batch norm sees both
                for norm in self.norms:
                    norm.rows = len(ids.own)
                x = self._pixels(step, rows, ids, others, outliers)
                outputs = self._forward(x)
                logits, features = (joined(out, (ids, others), fabric) for out in outputs)
                y = self.labels[rows.id[ids.part.start : ids.part.stop].to(self.device)]
                loss = self.loss_of(logits, features, y)
                for name, value in step_numbers(loss, logits, y).items():
                    numbers[name] = numbers.get(name, 0.0) + weight * value
                if not math.isfinite(numbers["loss"]):
                    terms = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
                    raise NotFinite(f"the loss is not finite ({terms})")
                fabric.backward(loss.total * weight)
        self.optimiser.step()
        return numbers

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        try:
            return self.model(x, return_features=True)
        except Exception as error:
            if self.config.compile and type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
                what = str(error).strip().splitlines()[0]
                raise InputError(f"--compile: the network cannot be compiled here ({what}); leave it out") from error
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                "a batch holds one image, too few for the batch norm of a network whose maps have one pixel; "
                f"choose another --batch-size (now {self.config.batch_size})"
            ) from error

    def _outliers(self, rows: StepRows, shares: Sequence[Share]) -> list[Tensor | None]:
        """This process's outliers of each part of a step, before any goes through the network."""
        if not self.outliers.pools:
            return [None] * len(shares)
        found: list[Tensor | None] = []
        failed: InputError | None = None
        try:
            found = [self.outliers.images(rows, share.own) for share in shares]
        except InputError as error:
            failed = error
        # all processes end together: one would wait for the others' outputs for ever
        if self.outliers.reads and largest(failed is not None, self.fabric):
            raise failed or InputError("another process cannot read outliers; run `curate verify` on each set")
        return found

    def _pixels(self, step: int, rows: StepRows, ids: Share, others: Share, outliers: Tensor | None) -> Tensor:
        """The images of this process, ID first, augmented and normalised, (n, 3, H, W) float32."""
        numbers = rows.id[ids.own.start : ids.own.stop].to(self.device)
        how = batches.ID_AUGMENTATION, self.config.crop_padding, self.id_scaling
        sources = [(self.images.index_select(0, numbers), ids, *how)]
        if outliers is not None:
            how = batches.OUTLIER_AUGMENTATION, self.outlier_padding, self.outlier_scaling
            sources.append((outliers, others, *how))
        parts = []
        for chosen, share, purpose, padding, scaling in sources:
            place = share.total, share.own.start
            chosen = batches.augment(chosen, padding, self.config.seed, purpose, step, place)
            parts.append(batches.normalise(chosen, *scaling))
        return torch.cat(parts)


def step_numbers(loss: LossParts, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """The loss, its parts and the accuracy on the ID images, as numbers; fetched from the device at once."""
    accuracy = (logits[: len(labels)].argmax(dim=1) == labels).float().mean()
    names = ("loss", *loss.terms, "id_accuracy")
    values = torch.stack([loss.total, *loss.terms.values(), accuracy])
    return dict(zip(names, values.tolist(), strict=True))
