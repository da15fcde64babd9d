"""The training loop: pretraining and every method of tuning differ in their loss and in whether there are outliers."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.multiprocessing.spawn import ProcessException, ProcessExitedException

from srood.errors import InputError
from srood.files import writing
from srood.models.weights import load_model, save_weights
from srood.stopping import Told
from train import checkpoints, runs
from train.config import AnyConfig, TuneConfig, reselection
from train.devices import make_fabric, resolve_device, resolve_precision
from train.inference import select, validate
from train.logbook import Interval, Logbook
from train.reporting import training_progress
from train.shares import largest
from train.signals import Asked, Stopped, how_to_go_on, noted, passed_on
from train.steps import NotFinite, StepNumbers, Stepper
from train.training_images import TrainingImages

LOG_EVERY = 50  # steps
FETCH_EVERY = 10  # steps, a divisor of the above: how often a GPU is waited for
CHECKPOINT_SECONDS = 300.0  # where --checkpoint-every is not given
DIVERGED = 10.0  # times the first loss, or that of a guess if it is larger


class Outcome(NamedTuple):
    """How training ended: with weights, by a signal, or by an error that is the user's to mend."""

    step: int
    signal: int = 0
    error: str = ""


def learning_rate(step: int, total: int, lr: float, final_lr: float) -> float:
    """Half a cosine from `lr` at step 0 to `final_lr` at step `total`, which is just after the last."""
    return final_lr + (lr - final_lr) * 0.5 * (1 + math.cos(math.pi * step / total))


def fit(run: Path, config: AnyConfig, data: TrainingImages) -> Path:
    """Train from the newest checkpoint of a run folder to the end; a fresh run has one of step 0.

    Returns:
        the path of the trained weights: the best on the held-out images where there are such, else the last.

    Raises:
        InputError: the loss is no longer finite, or far above where it began; the message names the step and the last
            checkpoint; or the disk is full, or one of several processes was killed.
        Stopped: SIGTERM or Ctrl-C came; the state is saved.
    """
    device = resolve_device(config.device)
    fabric = make_fabric(device, resolve_precision(config.precision, device), config.devices)
    with passed_on() if config.devices > 1 else nullcontext(Asked()) as asked:
        try:
            # partial: Fabric does not take frozen dataclasses as arguments of their own
            outcome: Outcome = fabric.launch(partial(_fit_process, run=run, config=config, data=data))
        except Told as told:  # before the loop could listen
            outcome = Outcome(checkpoints.newest_step(run), signal=told.number)
        except ProcessException as error:
            if not asked.number and _killed(error):
                reason = str(error).strip().splitlines()[-1]
                raise InputError(
                    f"{run}: one of its {config.devices} processes was killed ({reason}); see that there is "
                    f"memory, and continue with `srood train --resume {run}`"
                ) from error
            if not asked.number:
                raise
            outcome = Outcome(checkpoints.newest_step(run), signal=asked.number)
    if outcome.error:
        raise InputError(outcome.error)
    if outcome.signal:
        raise Stopped(run, outcome.step, outcome.signal)
    return run / runs.MODEL_FILE


def _killed(error: BaseException) -> bool:
    """Whether a process ended without an error of its own, or another noticed it first."""
    return isinstance(error, ProcessExitedException) or (
        isinstance(error, ProcessException) and "closed by peer" in str(error)
    )


def _fit_process(fabric: Fabric, run: Path, config: AnyConfig, data: TrainingImages) -> Outcome:
    """Runs in every process; an error goes back as a value, as an exception would not get through with its type."""
    try:
        with noted() as asked, _on_disk(run), ExitStack() as opened:
            outcome = _train(fabric, run, config, data, asked, opened)
    except InputError as error:
        outcome = Outcome(0, error=str(error))
    if fabric.world_size > 1:
        # all processes come here, errors included: they see the same loss; threads of gloo that are left would abort
        fabric.barrier()
        torch.distributed.destroy_process_group()
    return outcome


def _on_disk(run: Path) -> AbstractContextManager[None]:
    return writing(run, advice=f"free space, then {how_to_go_on(run)}")


def _train(
    fabric: Fabric, run: Path, config: AnyConfig, data: TrainingImages, asked: Asked, opened: ExitStack
) -> Outcome:
    # set-up: weights, optimiser and images on the device
    torch.backends.cudnn.deterministic = True
    checkpoint = checkpoints.newest(run)
    checkpoints.check(checkpoint)
    classifier, info = load_model(checkpoint / checkpoints.WEIGHTS_FILE, config.model)
    if info.mean is None or info.std is None:
        raise InputError(f"{checkpoint}: its weights lack mean and std; start the run again")
    stepper = Stepper(fabric, config, data, classifier, (info.mean, info.std))
    opened.callback(stepper.outliers.close)
    plan = data.plan(config)
    band = reselection(config.reselect) if isinstance(config, TuneConfig) and config.reselect else None

    # where the run stands
    state = checkpoints.load_state(checkpoint)
    start, bound, best = int(state["step"]), state.get("bound", math.inf), state.get("best")
    best_weights = checkpoints.load_best(checkpoint) if best else None
    selected: list[Tensor] | None = state.get("selected")
    if "optimiser" in state:
        stepper.optimiser.load_state_dict(state["optimiser"])
    writes = fabric.is_global_zero
    logbook = Logbook(run, start, config.tensorboard) if writes else None
    last_saved, interval = time.monotonic(), Interval(before=state.get("interval"))
    waiting: list[tuple[int, StepNumbers, int]] = []  # numbers on the device, of steps with so many images

    def stopped(step: int, what: str) -> InputError:
        return InputError(
            f"{run}: {what} at step {step}; lower --lr (now {config.lr:g}); "
            f"the last good checkpoint is {checkpoints.newest(run)}"
        )

    def fetch() -> None:
        nonlocal bound
        for step, measured, images in waiting:
            try:
                numbers = measured.fetched()
            except NotFinite as error:
                raise stopped(step, str(error)) from error
            if step == 0:
                bound = DIVERGED * max(numbers["loss"], math.log(classifier.fc.out_features))
            interval.add(numbers, images)
        waiting.clear()

    def save(step: int) -> None:
        fetch()
        weights = classifier.state_dict()
        for name, value in weights.items():
            if not torch.isfinite(value).all():
                raise stopped(step, f"the weights {name} are not finite")
        failed: InputError | None = None
        if writes:
            optional = {"best": best, "selected": selected}
            state = {"step": step, "bound": bound, "optimiser": stepper.optimiser.state_dict()}
            state["interval"] = interval.state()
            state |= {name: value for name, value in optional.items() if value is not None}
            try:
                with _on_disk(run):
                    checkpoints.save(run, step, weights, info, state, best_weights)
            except InputError as error:
                failed = error
        if largest(failed is not None, fabric):  # the processes end together
            raise failed or InputError(f"{run}: its checkpoint cannot be written")

    with training_progress(f"{config.workflow} {config.model}", start, plan.total, silent=not writes) as report:
        for step in range(start, plan.total):
            # the outliers of the epoch, the rows of the step, the step
            if band and step % plan.epoch_steps == 0:
                selected = select(stepper.model, stepper.outliers.held, band, stepper.outlier_scaling, fabric)
            rows = plan.rows(step, selected)
            lr = learning_rate(step, plan.scheduled, config.lr, config.final_lr)
            try:
                measured = stepper.take(step, rows, lr)
            except NotFinite as error:
                raise stopped(step, str(error)) from error
            waiting.append((step, measured, len(rows.id) + len(rows.outliers)))

            # log, validate
            done = step + 1
            epoch_done = done % plan.epoch_steps == 0 or done == plan.total
            if not stepper.deferred or step == 0 or done % FETCH_EVERY == 0 or epoch_done:
                fetch()
            report(done, interval.note())
            if done % LOG_EVERY == 0 or epoch_done:
                line = {"step": done, "epoch": done / plan.epoch_steps, "lr": lr, **interval.means()}
                if line["loss"] > bound:
                    mean = f"{line['loss']:.4g} over {line['steps']} steps"
                    raise stopped(done, f"the loss diverges (a mean of {mean}, above {bound:.4g})")
                if epoch_done and data.held_out is not None:
                    line |= validate(stepper, data)
                    if best is None or line["validation_loss"] < best["validation_loss"]:
                        best = {name: line[name] for name in ("step", "validation_loss", "validation_accuracy")}
                        best_weights = {name: value.detach().clone() for name, value in classifier.state_dict().items()}
                if logbook:
                    logbook.write(line)
                interval = Interval(interval.note())

            # checkpoint
            signal = largest(asked.number, fabric)  # one process may have heard what the others did not
            if config.checkpoint_every:
                due = done % config.checkpoint_every == 0
            else:
                due = epoch_done or bool(largest(time.monotonic() - last_saved > CHECKPOINT_SECONDS, fabric))
            if due or signal or done == plan.total:
                save(done)
                last_saved = time.monotonic()
            if signal and done < plan.total:
                return Outcome(done, signal=signal)

    if logbook:
        logbook.close()
        save_weights(run / runs.MODEL_FILE, best_weights or classifier.state_dict(), info)
    return Outcome(plan.total, signal=largest(asked.number, fabric))  # finished, but what comes next is not to start
