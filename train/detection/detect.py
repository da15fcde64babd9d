"""Detection: class, confidence, score and decision for each image of folders, files, globs, named sets or a list.

Images are read, decided on and written a batch at a time; nothing is kept but counts.
"""

from __future__ import annotations

import csv
import glob
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
from rich.console import Console

from srood.containers import COMPRESSED, FORMATS
from srood.containers.container import IMAGE_SUFFIXES, Row, printable
from srood.datasets import batched, resolve
from srood.detector import BATCH, Detector, load_detector
from srood.errors import InputError
from srood.files import check_place, replace_file
from srood.images import Unusable, decode_batch
from srood.progress import progress_bar

OUTPUTS = ("table", "jsonl", "csv")


@dataclass(frozen=True)
class Detection:
    """What is said of one image; where it cannot be used, `status` is ``unusable`` and only `reason` says more."""

    image: str  # its path, or its key in a set
    status: str  # ok or unusable
    class_name: str | None = None
    class_index: int | None = None
    confidence: float | None = None
    score: float | None = None
    is_ood: bool | None = None
    reason: str | None = None


@dataclass
class Summary:
    """Counts of a detection, and the detector that made it."""

    detector: Detector
    accepted: int = 0
    ood: int = 0
    unusable: Counter[str] = field(default_factory=Counter)  # by reason

    def add(self, found: Detection) -> None:
        """Count one image."""
        if found.is_ood is None:
            self.unusable[found.reason or ""] += 1
        else:
            self.ood += found.is_ood
            self.accepted += not found.is_ood


@dataclass(frozen=True)
class Source:
    """Images of one argument: how many there are, None where that is not known beforehand, and their rows."""

    count: int | None
    rows: Callable[[], Iterator[Row]]


def detect(
    path: Path,
    images: Sequence[str],
    *,
    output: str | None = None,
    out: Path | None = None,
    threshold: float | None = None,
    device: str = "auto",
    batch_size: int = BATCH,
    stdin: BinaryIO | None = None,
    stdout: TextIO | None = None,
) -> Summary:
    """Decide on images, and write a line for each in their order.

    Args:
        path: anything that `srood.detector.load_detector` opens
        images: image files, folders, globs, any other image spec, or ``-`` for paths on standard input
        output: a name of `OUTPUTS`; by default as `out` ends, else a table
        out: file to write, whole or not at all; by default standard output
        threshold: one to use instead of the calibrated one
        device, batch_size: of the forward pass
        stdin, stdout: in place of the process's own

    Returns:
        the counts.

    Raises:
        InputError: before any image is read: a detector, spec or option that cannot be used; afterwards: not one of
            the images could be used.
    """
    if output is None:
        ending = "" if out is None else out.suffix[1:].lower()
        if ending == "json":
            raise InputError(f"--out {out}: JSON is written a line an image; name it .jsonl, or give --format")
        output = ending if ending in OUTPUTS else "table"
    if output not in OUTPUTS:
        raise InputError(f"--format {output}: is unknown; choose one of {', '.join(OUTPUTS)}")
    if out is not None:
        check_place(out, "--out ")
    detector = load_detector(path, device, threshold)
    sources = open_sources(images, stdin or sys.stdin.buffer)
    summary = Summary(detector)

    def run(stream: TextIO) -> None:
        counts = [source.count for source in sources]
        total = None if None in counts else sum(count or 0 for count in counts)
        # a bar on the terminal that the rows are printed on would tear them
        console = Console(stderr=True, force_terminal=False if stream.isatty() else None)
        with progress_bar(console=console) as progress:
            task = progress.add_task("detect", total=total, note="")

            def counted() -> Iterator[Detection]:
                for found in detections(detector, (row for source in sources for row in source.rows()), batch_size):
                    summary.add(found)
                    progress.advance(task)
                    yield found

            write_detections(counted(), output, stream, detector.classes)

    if out is None:
        run(stdout or sys.stdout)
    else:

        def write(beside: Path) -> None:
            with open(beside, "w", encoding="utf-8", newline="") as stream:
                run(stream)

        replace_file(out, write)
    if not summary.accepted + summary.ood:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in summary.unusable.most_common())
        raise InputError(f"{' '.join(images)}: no image could be used ({reasons or 'there are none'}); give others")
    return summary


def open_sources(specs: Sequence[str], stdin: BinaryIO) -> list[Source]:
    """Resolve each argument, reading no images.

    Raises:
        InputError: none are given, one resolves nowhere, or a glob finds no image files.
    """
    if not specs:
        raise InputError("images are missing; name files, folders or globs, or - for paths on standard input")
    if specs.count("-") > 1:
        raise InputError("-: is given twice, and standard input can be read once")
    return [_open_source(spec, stdin) for spec in specs]


def detections(detector: Detector, rows: Iterable[Row], batch_size: int = BATCH) -> Iterator[Detection]:
    """What a detector says of each row, in order; not more than one batch of rows is read ahead."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for batch in batched(iter(rows), batch_size):
            decoded, reasons = decode_batch([row.data for row in batch], detector.image_size, pool)
            good = np.array([reason is None for reason in reasons])
            found = detector.predict(decoded[good], batch_size)
            number = 0
            for row, reason in zip(batch, reasons, strict=True):
                name = printable(str(row.data)) if isinstance(row.data, Path) else row.key
                if reason is not None:
                    yield Detection(name, "unusable", reason=reason)
                    continue
                yield Detection(
                    name,
                    "ok",
                    found.names[number],
                    int(found.classes[number]),
                    float(found.confidence[number]),
                    float(found.scores[number]),
                    bool(found.is_ood[number]),
                )
                number += 1


def write_detections(found: Iterable[Detection], output: str, stream: TextIO, classes: Sequence[str]) -> None:
    """Write detections as they come: a table of fixed columns, JSON lines, or CSV with a header."""
    if output == "jsonl":
        for one in found:
            stream.write(json.dumps(asdict(one), ensure_ascii=False) + "\n")
        return
    if output == "csv":
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(Detection.__dataclass_fields__)
        for one in found:
            values = asdict(one) | {"is_ood": None if one.is_ood is None else str(one.is_ood).lower()}
            writer.writerow(values.values())
        return
    shown = {name: _on_terminal(name) for name in classes}
    width = max(len("class"), *(len(name) for name in shown.values()))
    stream.write(f"{'':<8}  {'score':>10}  {'confidence':>10}  {'class':<{width}}  image\n")
    for one in found:
        image = _on_terminal(one.image)
        if one.score is None:
            stream.write(f"{'unusable':<8}  {'':>10}  {'':>10}  {'':<{width}}  {image} ({one.reason})\n")
        else:
            decision = "out" if one.is_ood else "in"
            numbers = f"{one.score:>10.4f}  {one.confidence:>10.4f}"
            name = shown[one.class_name or ""]
            stream.write(f"{decision:<8}  {numbers}  {name:<{width}}  {image}\n")


def _on_terminal(name: str) -> str:
    """A name without what a terminal obeys: control characters become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in printable(name))


def _open_source(spec: str, stdin: BinaryIO) -> Source:
    if spec == "-":
        return Source(None, lambda: _listed(stdin))
    path = Path(spec)
    sets = (*FORMATS, *COMPRESSED)
    if path.is_file() and not path.name.lower().endswith(sets):
        return _files([path])
    if glob.has_magic(spec) and not path.exists() and not spec.startswith("hf://"):
        matches = (Path(match) for match in sorted(glob.glob(spec, recursive=True)))
        files = [match for match in matches if match.suffix.lower() in IMAGE_SUFFIXES and match.is_file()]
        if not files:
            raise InputError(f"{spec}: no image files match; check the pattern")
        return _files(files)
    source = resolve(spec)
    return Source(source.num_rows(), source.rows)


def _files(paths: list[Path]) -> Source:
    return Source(len(paths), lambda: (Row(str(path), path, -1) for path in paths))


def _listed(stdin: BinaryIO) -> Iterator[Row]:
    for line in stdin:
        name = os.fsdecode(line.rstrip(b"\r\n"))
        if name:
            path = Path(name)
            yield Row(printable(name), path if os.path.lexists(path) else Unusable("no such file"), -1)
