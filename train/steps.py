"""One optimiser step: the batch of a process, the forward pass, the loss of the joint batch, the gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from lightning_fabric import Fabric
from torch import Tensor

from srood.errors import InputError
from srood.losses import Loss, LossParts
from srood.methods import make_loss
from srood.models import Classifier
from srood.models.weights import Triple
from srood.normalisation import apply_normalisation, scale_and_shift
from train import batches
from train.batchnorm import choose_rows
from train.config import AnyConfig, TuneConfig
from train.device_images import held_images, taken
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


@dataclass
class StepNumbers:
    """``loss``, its unweighted terms and ``id_accuracy`` of a step, over the batch of all processes, on the device.

    Attributes:
        names: of the numbers
        parts: of each part of the batch its weight, and its numbers, (len(names),)
    """

    names: tuple[str, ...] = ()
    parts: list[tuple[float, Tensor]] = field(default_factory=list)

    def fetched(self) -> dict[str, float]:
        """The numbers, once the device has come to them.

        Raises:
            NotFinite: the loss is not finite.
        """
        numbers = dict.fromkeys(self.names, 0.0)
        for weight, values in self.parts:
            for name, value in zip(self.names, values.tolist(), strict=True):
                numbers[name] += weight * value
            if not math.isfinite(numbers["loss"]):
                terms = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
                raise NotFinite(f"the loss is not finite ({terms})")
        return numbers


def deferred(device: torch.device) -> bool:
    """Whether the numbers of a step are left on the device for later: a GPU would stand idle while they are fetched."""
    return device.type == "cuda"


def memory_format(device: torch.device) -> torch.memory_format:
    """channels_last on a GPU, whose tensor cores want it; on some CPUs it is many times slower in bfloat16."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


class Stepper:
    """The classifier, its optimiser and its images on the device of one process of a run.

    Attributes:
        classifier: the weights that are trained
        model: the same, as Fabric runs it
        id_scaling, outlier_scaling: mean and standard deviation that ID images and outliers are normalised with
        outliers: the images of the outlier sets
        deferred: whether `take` leaves the numbers of a step on the device
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
        self.deferred, self.format = deferred(self.device), memory_format(self.device)
        self.images, self.labels = held_images(data.images, self.device), data.labels.to(self.device)
        self.outliers = OutlierPools(data.outliers, self.device)
        self.id_scaling = self.outlier_scaling = scaling
        self.outlier_padding = config.crop_padding
        if tuning is not None:
            self.outlier_scaling = IMAGENET if tuning.outlier_normalisation == "imagenet" else scaling
            if tuning.outlier_crop_padding is not None:
                self.outlier_padding = tuning.outlier_crop_padding
        self._scales = [scale_and_shift(*pair, self.device) for pair in (self.id_scaling, self.outlier_scaling)]
        id_only = tuning is not None and tuning.batch_norm == "id"
        self.norms = choose_rows(classifier, id_only, shared=fabric.world_size > 1)
        if self.format != torch.contiguous_format:
            classifier.to(memory_format=self.format)
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

    def take(self, step: int, rows: StepRows, lr: float) -> StepNumbers:
        """Take one step at a learning rate.

        Returns:
            what can be fetched of the step.

        Raises:
            NotFinite: the loss is not finite; no weight was changed by this step. Where `deferred`, this comes when the
                numbers are fetched, and weights were changed.
            InputError: a batch is too small for the network.
        """
        config, fabric = self.config, self.fabric
        # dropout's random numbers are a function of seed, step and process, like all the others
        torch.manual_seed(batches.derived_seed(config.seed, batches.DROPOUT, step, fabric.global_rank))
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.zero_grad()
        numbers = StepNumbers()
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
                y = taken(self.labels, rows.id[ids.part.start : ids.part.stop], self.device)
                loss = self.loss_of(logits, features, y)
                numbers.names = ("loss", *loss.terms, "id_accuracy")
                numbers.parts.append((weight, step_numbers(loss, logits, y)))
                if not self.deferred:
                    numbers.fetched()
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
        images = taken(self.images, rows.id[ids.own.start : ids.own.stop], self.device)
        sources = [(images, ids, batches.ID_AUGMENTATION, self.config.crop_padding)]
        if outliers is not None:
            sources.append((outliers, others, batches.OUTLIER_AUGMENTATION, self.outlier_padding))
        parts = []
        for (chosen, share, purpose, padding), scales in zip(sources, self._scales, strict=False):
            place = share.total, share.own.start
            chosen = batches.augment(chosen, padding, self.config.seed, purpose, step, place)
            parts.append(apply_normalisation(chosen, *scales, self.format))
        return torch.cat(parts)


def step_numbers(loss: LossParts, logits: Tensor, labels: Tensor) -> Tensor:
    """The loss, its parts and the accuracy on the ID images, on the device."""
    accuracy = (logits[: len(labels)].argmax(dim=1) == labels).float().mean()
    return torch.stack([loss.total, *loss.terms.values(), accuracy]).detach()
