"""`srood calibrate`, `srood detect` and `srood export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from train.commands.options import MODEL_HELP, Device

if TYPE_CHECKING:
    from srood.calibration import Calibration
    from train.detection.detect import Summary

RUN_HELP = "Run folder, or a weights file (.safetensors)."
IMAGES_HELP = "Image files, folders, globs, named sets or any other image spec; - reads paths from standard input."


def calibrate(
    run: Annotated[Path, typer.Argument(help=RUN_HELP, show_default=False)],
    tpr: Annotated[float, typer.Option(help="Share of ID images to accept, between 0 and 1.")] = 0.95,
    score: Annotated[str, typer.Option(help="Score to decide by: energy, msp, max-logit ...")] = "energy",
    images: Annotated[
        str | None,
        typer.Option(
            help="Held-out ID images, any image spec. By default the run's validation split, else the ID test images."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help=f"For a weights file. {MODEL_HELP}", show_default=False)] = None,
    id: Annotated[str | None, typer.Option("--id", help="For a weights file: its ID set.", show_default=False)] = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images a forward pass.")] = 500,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Fix the threshold of a classifier on held-out ID images, with confidence intervals, and store it."""
    from train.detection.calibrate import calibrate as run_calibrate

    calibration, file = run_calibrate(
        run, tpr=tpr, score=score, images=images, model=model, id_set=id, device=device, batch_size=batch_size
    )
    if json:
        print(calibration.to_json())
    else:
        print_calibration(calibration)
        print(f"written to {file}")


def detect(
    run: Annotated[
        Path,
        typer.Argument(help="Calibrated run folder or weights file, or an exported detector.", show_default=False),
    ],
    images: Annotated[list[str], typer.Argument(help=IMAGES_HELP, show_default=False)],
    format: Annotated[
        str | None,
        typer.Option(help="table, jsonl or csv. By default as --out ends, else table.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write. By default standard output.", show_default=False)
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Use this threshold: images with a score above it are out.", show_default="calibrated"),
    ] = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images a forward pass.")] = 500,
) -> None:
    """Say of each image its class, confidence, OOD score, and whether it is in or out of distribution.

    The exit code is 0 even where some images cannot be used, which are counted, and 2 where none can.
    """
    from train.detection.detect import detect as run_detect

    summary = run_detect(run, images, output=format, out=out, threshold=threshold, device=device, batch_size=batch_size)
    print_summary(summary)
    if out is not None:
        print(f"written to {out}", file=sys.stderr)


def export(
    run: Annotated[Path, typer.Argument(help=f"Calibrated: {RUN_HELP.lower()}", show_default=False)],
    format: Annotated[
        str | None,
        typer.Option(help="onnx, torchscript or safetensors. By default as --out ends.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write. By default detector.onnx, .pt or .safetensors in the run.", show_default=False
        ),
    ] = None,
) -> None:
    """Write a detector as one file: from uint8 images to logits, class, confidence, score and decision."""
    from train.detection.export import export as run_export

    print(run_export(run, format, out))


def print_calibration(calibration: Calibration) -> None:
    """A calibration in words, on standard output."""
    c = calibration
    level = f"{100 * c.confidence:g} % interval"
    low, high = (100 * bound for bound in c.acceptance_interval)
    print(f"threshold of {c.score}: {c.threshold:.6g} ({level} {c.threshold_interval[0]:.6g} to "
          f"{c.threshold_interval[1]:.6g})")  # fmt: skip
    print(f"accepts {c.accepted:,} of {c.images.count:,} images of {c.images.spec} ({c.images.what})")
    print(f"accepts {low:.2f} % to {high:.2f} % of images like these ({level})")


def print_summary(summary: Summary) -> None:
    """Counts of a detection on standard error."""
    read = summary.accepted + summary.ood
    detector = summary.detector
    line = f"{read:,} images: {summary.accepted:,} in, {summary.ood:,} out ({100 * summary.ood / read:.1f} %)"
    print(f"{line}; out is where {detector.score_name} > {detector.threshold:.6g}", file=sys.stderr)
    if summary.unusable:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in summary.unusable.most_common())
        print(f"unusable: {summary.unusable.total():,} ({reasons})", file=sys.stderr)
