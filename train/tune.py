"""Tuning a pretrained classifier by SR, SROE or what they are compared with, and continuing any interrupted run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from srood.datasets import Images, id_specs
from srood.errors import InputError
from srood.hashes import file_sha256
from srood.locks import LOCK, locked
from srood.methods import find_method, resolve_options
from srood.models import check_model
from srood.models.weights import WeightsInfo, load_model
from train import checkpoints, outlier_sets, runs
from train.batchnorm import check_rows
from train.block_sets import choose_blocks, reading_sentence
from train.config import AnyConfig, PretrainConfig, TuneConfig, read_config
from train.devices import placed
from train.id_sets import check_classes, load_labelled, normalisation
from train.loop import fit
from train.plan import check_parts
from train.pretrain import pretrain
from train.reporting import say
from train.summary import say_summary
from train.training_images import training_images


def tune(config: TuneConfig, out: Path | None = None) -> Path:
    """Tune a classifier: by ``config.method``, by default SROE with ``config.outliers`` and SR without.

    Without ``config.checkpoint`` it starts from the newest pretrained run under ``runs`` for the same ID set and
    model, and pretrains one where there is none.

    Args:
        config: every setting
        out: the run folder; by default one under ``runs``, named after ID set, model, method and seed

    Returns:
        the run folder.

    Raises:
        InputError: something in `config` or `out` cannot be used, another process trains there, the disk is full, or
            the loss stopped being finite.
        Stopped: the run was told to stop; its state is saved.
    """
    # everything that can be wrong is found before the run folder is made
    config = placed(config)
    check_model(config.model)
    config = outlier_sets.pinned_sets(config)
    sets = outlier_sets.open_sets(config)
    check_parts(config)
    run = runs.choose_folder(config, out)
    weights = None if config.checkpoint is None else runs.find_weights(config.checkpoint)
    if weights is not None:
        config = _with_image_size(config, weights)
    outlier_sets.check_size(sets, config.image_size)
    config = choose_blocks(config, sets)
    images = load_labelled(id_specs(config.id)[0], config.image_size)
    config = with_method(config, len(images.class_names))
    data = training_images(config, images, sets)
    plan = data.plan(config)
    if weights is None:
        weights = _pretrained(config, images)
    model, info = load_model(weights, config.model, config.image_size)
    check_classes(str(weights), model.fc.out_features, info, images)
    unseen = config.validation > 0 and runs.held_out_alike(weights, config)
    if config.validation > 0 and not unseen:
        say(
            f"note: {weights} may have been trained on images that this run holds out; pretrain with the same "
            "--validation and --seed to rule that out"
        )
    check_rows(model, id_only=config.batch_norm == "id", shared=config.devices > 1)
    mean, std = normalisation(config.id, info, images.images)

    config = config.model_copy(update={"checkpoint": weights})
    info = WeightsInfo(config.model, config.id, mean, std, images.class_names, config.image_size)
    record = runs.describe(config, model, images, info, plan)
    record["start"] = {"file": str(weights), "sha256": file_sha256(weights)}
    record["held_out_unseen"] = unseen
    record["outliers"] = outlier_sets.describe(config, sets)
    with runs.new_run(run):
        runs.create(run, config, record, model.state_dict(), info)
        against = " and ".join(f"{entry['rows']:,} outliers of {entry['file']}" for entry in record["outliers"])
        against = f" with {against}" if against else ""
        where = f"{config.device}, {config.precision}"
        say(f"{config.workflow.upper()}: tuning {weights} on {images.spec}{against} into {run} ({where})")
        _say_reading(record["outliers"])
        fit(run, config, data)
        say_summary(run)
    return run


def resume(run: Path, device: str | None = None) -> Path:
    """Continue a run from its newest checkpoint; on the same device the result is that of an undisturbed run.

    Args:
        run: a run folder of any workflow; a finished one is left as it is
        device: a device other than the run's

    Returns:
        the run folder.

    Raises:
        InputError: not a run folder, its images or outliers are no longer those it was started with, another process
            trains it, or the disk is full.
        Stopped: the run was told to stop; its state is saved.
    """
    config = read_config(run)
    if runs.is_finished(run):
        if (run / LOCK).exists():  # it was killed when all but this was done
            with suppress(InputError), locked(run, within=True):
                pass
        say(f"{run}: this run is finished; nothing to do")
        return run
    with locked(run, within=True):
        return _continue(run, config if device is None else config.model_copy(update={"device": device}))


def _continue(run: Path, config: AnyConfig) -> Path:
    config = placed(config)
    record = runs.read_record(run)
    sets = outlier_sets.open_sets(config) if isinstance(config, TuneConfig) else []
    outlier_sets.check_unchanged(sets, record.get("outliers", []), run)
    images = load_labelled(id_specs(config.id)[0], config.image_size)
    if images.fingerprint != record["id"]["fingerprint"]:
        raise InputError(f"{images.spec}: its images are not those that {run} was started with; restore them")
    say(f"continuing {run} from {checkpoints.newest(run)}")
    _say_reading(record.get("outliers", []))
    fit(run, config, training_images(config, images, sets))
    say_summary(run)
    return run


def with_method(config: TuneConfig, classes: int) -> TuneConfig:
    """A configuration with its method named and every option of the method resolved.

    Raises:
        InputError: the method has no such option, or none for this number of classes.
    """
    named = {"alpha": config.alpha, "beta": config.beta}
    given = {name: value for name, value in named.items() if value is not None}
    for name in given.keys() & config.method_options.keys():
        raise InputError(f"--method-option {name}: is given by --{name} too; give it once")
    known = find_method(config.workflow).options
    for name in given.keys() - known.keys():
        raise InputError(
            f"--{name}: method {config.workflow} has no such option; its options: {', '.join(known) or 'none'}"
        )
    options = resolve_options(config.workflow, given | config.method_options, classes)
    if config.sparsity_on == "all":
        if "outlier_sparsity" not in known:
            raise InputError(
                f"--sparsity-on all: method {config.workflow} has no sparsity term of outliers; leave it out"
            )
        if "outlier_sparsity" in config.method_options and options["outlier_sparsity"] != 1:
            raise InputError("--method-option outlier_sparsity: is given by --sparsity-on too; give it once")
        options["outlier_sparsity"] = 1.0
    return config.model_copy(update={"method": config.workflow, "method_options": options, "alpha": None, "beta": None})


def _say_reading(entries: list[dict[str, Any]]) -> None:
    """Say how each outlier set is read, where any is not held in memory."""
    if any("blocks" in entry for entry in entries):
        for entry in entries:
            say(reading_sentence(entry))


def _with_image_size(config: TuneConfig, weights: Path) -> TuneConfig:
    size = load_model(weights, config.model, config.image_size)[1].image_size
    if size is not None and size != config.image_size and "image_size" in config.model_fields_set:
        raise InputError(f"--image-size {config.image_size}: {weights} is of images of {size} pixels; leave it out")
    return config if size is None else config.model_copy(update={"image_size": size})


def _pretrained(config: TuneConfig, images: Images) -> Path:
    found = runs.find_pretrained(config, images.fingerprint)
    if found is not None:
        steps = runs.read_record(found)["steps"]
        say(f"no --checkpoint given: starting from the newest pretrained run, {found} ({steps:,} steps)")
        return found / runs.MODEL_FILE
    which = f"{config.model} on {config.id}" + (" with the same held-out images" if config.validation else "")
    say(f"no --checkpoint given and no pretrained run of {which} found: pretraining first")
    own = {"epochs", "lr", "final_lr", "crop_padding", "tensorboard"}  # pretraining's own defaults
    shared = set(PretrainConfig.model_fields) - own
    settings = {name: getattr(config, name) for name in shared}
    return pretrain(PretrainConfig(**settings), id_images=images) / runs.MODEL_FILE
