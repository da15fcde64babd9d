"""The training loop: pretraining, SR and SROE differ in their loss and in whether there are outliers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srood.errors import InputError
from srood.files import write_text
from srood.losses import LossParts, ce_loss, sr_loss, sroe_loss
from srood.models.weights import load_model, save_weights
from train import batches, runs
from train.config import PretrainConfig, TuneConfig
from train.devices import make_fabric, resolve_device, resolve_precision
from train.reporting import say, training_progress

LOG_EVERY = 50  # steps
CHECKPOINT_SECONDS = 300.0  # where --checkpoint-every is not given


def learning_rate(step: int, total: int, lr: float, final_lr: float) -> float:
    """Half a cosine from `lr` at step 0 to `final_lr` at step `total`, which is just after the last."""
    return final_lr + (lr - final_lr) * 0.5 * (1 + math.cos(math.pi * step / total))


def total_steps(config: PretrainConfig | TuneConfig, id_count: int) -> int:
    """Steps of a run: `epochs` over the ID images, or `max_steps` where that is fewer."""
    steps = config.epochs * batches.steps_per_epoch(id_count, config.batch_size)
    return min(steps, config.max_steps or steps)


def objective(config: PretrainConfig | TuneConfig) -> Callable[[Tensor, Tensor, Tensor], LossParts]:
    """The loss of a workflow, as a function of logits, features and ID labels."""
    if isinstance(config, PretrainConfig):
        return ce_loss
    if config.outliers is None:
        return partial(sr_loss, alpha=config.alpha)
    return partial(sroe_loss, alpha=config.alpha, beta=config.beta)


def fit(
    run: Path,
    config: PretrainConfig | TuneConfig,
    id_images: np.ndarray,
    id_labels: np.ndarray,
    outlier_images: np.ndarray | None,
) -> Path:
    """Train from the newest checkpoint of a run folder to the end; a fresh run has one of step 0.

    Args:
        run: a folder made by `runs.create`
        config: the run's configuration
        id_images: (N, H, W, 3) uint8
        id_labels: (N,) int64, in [0, C)
        outlier_images: (M, H, W, 3) uint8, or None

    Returns:
        the path of the trained weights.

    Raises:
        InputError: the loss is no longer finite; the message names the step and the last checkpoint.
    """
    # set-up: device, data in its memory, model, optimiser
    torch.backends.cudnn.deterministic = True
    torch.manual_seed(batches.derived_seed(config.seed))  # for dropout
    device = resolve_device(config.device)
    fabric = make_fabric(device, resolve_precision(config.precision, device))
    images = torch.from_numpy(id_images).to(device)
    labels = torch.from_numpy(id_labels).to(device)
    outliers = None if outlier_images is None else torch.from_numpy(outlier_images).to(device)
    checkpoint = runs.newest_checkpoint(run)
    classifier, info = load_model(checkpoint / "weights.safetensors", config.model)
    if info.mean is None or info.std is None:
        raise InputError(f"{checkpoint}: its weights lack mean and std; start the run again")
    optimiser = torch.optim.SGD(
        classifier.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay, nesterov=True
    )
    model, optimiser = fabric.setup(classifier, optimiser)
    model.train()
    loss_of = objective(config)

    # where the run stands
    state = runs.load_state(checkpoint)
    start = int(state["step"])
    if "optimiser" in state:
        optimiser.load_state_dict(state["optimiser"])
        restore_random_state(state, device)
    total = total_steps(config, len(images))
    epoch_steps = batches.steps_per_epoch(len(images), config.batch_size)
    log_path = run / runs.METRICS_FILE
    cut_log(log_path, start)
    last_saved = time.monotonic()
    interval = Interval()

    def stopped(step: int, what: str) -> InputError:
        return InputError(
            f"{run}: {what} at step {step}; lower --lr (now {config.lr:g}); "
            f"the last good checkpoint is {runs.newest_checkpoint(run)}"
        )

    def save(step: int) -> None:
        for name, value in classifier.state_dict().items():
            if not torch.isfinite(value).all():
                raise stopped(step, f"the weights {name} are not finite")
        state = {"step": step, "optimiser": optimiser.state_dict(), **random_state(device)}
        runs.save_checkpoint(run, step, classifier.state_dict(), info, state)

    with (
        _how_to_continue(run),
        training_progress(f"{config.workflow} {config.model}", start, total) as report,
        open(log_path, "a", encoding="utf-8") as log,
    ):
        for step in range(start, total):
            # the batch: ID images, then outliers
            rows = batches.id_rows(step, len(images), config.batch_size, config.seed).to(device)
            y = labels[rows]
            x = images[rows]
            x = batches.augment(x, config.crop_padding, config.seed, batches.ID_AUGMENTATION, step)
            if outliers is not None and isinstance(config, TuneConfig):
                out_rows = batches.outlier_rows(step, len(outliers), config.outlier_batch_size, config.seed)
                out = outliers[out_rows.to(device)]
                out = batches.augment(out, config.crop_padding, config.seed, batches.OUTLIER_AUGMENTATION, step)
                x = torch.cat([x, out])
            x = batches.normalise(x, info.mean, info.std)

            # one forward pass over both, so that batch norm sees both
            lr = learning_rate(step, total, config.lr, config.final_lr)
            for group in optimiser.param_groups:
                group["lr"] = lr
            logits, features = model(x, return_features=True)
            loss = loss_of(logits, features, y)
            numbers = step_numbers(loss, logits, y)
            if not math.isfinite(numbers["loss"]):
                parts = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
                raise stopped(step, f"the loss is not finite ({parts})")
            optimiser.zero_grad()
            fabric.backward(loss.total)
            optimiser.step()

            # log, checkpoint
            done = step + 1
            interval.add(numbers, len(x))
            report(done, interval.note())
            if done % LOG_EVERY == 0 or done % epoch_steps == 0 or done == total:
                line = {"step": done, "epoch": done / epoch_steps, "lr": lr, **interval.means()}
                log.write(json.dumps(line) + "\n")
                log.flush()
                interval = Interval(interval.note())
            if config.checkpoint_every:
                due = done % config.checkpoint_every == 0
            else:
                due = done % epoch_steps == 0 or time.monotonic() - last_saved > CHECKPOINT_SECONDS
            if due or done == total:
                save(done)
                last_saved = time.monotonic()

    save_weights(run / runs.MODEL_FILE, classifier.state_dict(), info)
    return run / runs.MODEL_FILE


@contextmanager
def _how_to_continue(run: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted; continue with: srood train --resume {run}")
        raise


def step_numbers(loss: LossParts, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """The loss, its parts and the accuracy on the ID images, as numbers; fetched from the device at once."""
    accuracy = (logits[: len(labels)].argmax(dim=1) == labels).float().mean()
    names = ("loss", *loss.terms, "id_accuracy")
    values = torch.stack([loss.total, *loss.terms.values(), accuracy])
    return dict(zip(names, values.tolist(), strict=True))


class Interval:
    """Sums over the steps since the last line of the log."""

    def __init__(self, note: str = "") -> None:
        self.started = time.monotonic()
        self.steps = self.images = 0
        self.sums: dict[str, float] = {}
        self.last_note = note

    def add(self, numbers: dict[str, float], images: int) -> None:
        """Count one step of `images` images, ID and outliers together."""
        self.steps += 1
        self.images += images
        for name, value in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, Any]:
        """For the log: means over the steps, and images a second."""
        seconds = time.monotonic() - self.started
        return {
            **{name: value / self.steps for name, value in self.sums.items()},
            "images_per_second": round(self.images / max(seconds, 1e-9), 1),
            "steps": self.steps,
        }

    def note(self) -> str:
        """For a person: the same in a line; that of the interval before for the first steps."""
        if self.last_note and self.steps < 10:
            return self.last_note
        m = self.means()
        terms = [f"{name.replace('_', ' ')} {m[name]:.3f}" for name in self.sums if name not in ("loss", "id_accuracy")]
        rate = f"{m['images_per_second']:,.0f} images/s"
        return f"loss {m['loss']:.3f} ({', '.join(terms)}); accuracy {m['id_accuracy']:.1%}; {rate}"


def random_state(device: torch.device) -> dict[str, Tensor]:
    """States of the global random generators, which dropout draws from."""
    states = {"random_cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["random_cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """The reverse of `random_state`; on another kind of device the CPU's state only."""
    torch.set_rng_state(state["random_cpu"])
    if device.type == "cuda" and "random_cuda" in state:
        torch.cuda.set_rng_state(state["random_cuda"], device)


def cut_log(path: Path, step: int) -> None:
    """Remove from a log the lines after a step, and a last line that was cut off."""
    if not path.is_file():
        return
    kept = []
    for text in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if text.endswith("\n") and json.loads(text)["step"] <= step:
                kept.append(text)
        except ValueError:
            break
    write_text(path, "".join(kept))
