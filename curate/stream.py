"""The corpus streams past in batches; a batch goes through the stages, cheap before dear, and leaves a part behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from rich.console import Console

from curate import sources
from curate.config import BuildConfig
from curate.fingerprints import copy_descriptor
from curate.inputs import Inputs
from curate.record import Tally
from curate.reference import Reference
from curate.workspace import Workspace
from srood import images, outliers
from srood.errors import InputError
from srood.progress import progress_bar


def stream_corpus(
    config: BuildConfig, inputs: Inputs, reference: Reference, work: Workspace, tally: Tally, console: Console
) -> dict[str, np.ndarray]:
    """Take every batch of the corpus through the stages up to the ID filter; return what survives, column by column."""
    seen: set[bytes] = set()
    parts: list[dict[str, np.ndarray]] = []
    source = start = 0
    with (
        progress_bar("images", console) as progress,
        ThreadPoolExecutor(config.workers or os.cpu_count() or 1) as pool,
    ):
        task = progress.add_task("corpus", total=inputs.corpus.num_rows(), note="")

        def take(part: dict[str, np.ndarray]) -> None:
            seen.update(part.pop("digest").tolist())
            tally.add_json(str(part.pop("tally")))
            rows = part.pop("next")
            progress.advance(task, int(rows[2]))
            progress.update(task, note=f"{tally.left('ID-class neighbours'):,} left")
            part.pop("image")  # read again when all are gathered: the corpus may be larger than memory
            parts.append(part)

        while (part := work.read(f"part-{len(parts):06d}")) is not None:
            source, start = int(part["next"][0]), int(part["next"][1])
            take(part)

        def decoded() -> Iterator[tuple[sources.RawBatch, np.ndarray, list[str | None]]]:
            for raw in sources.raw_batches(inputs.corpus, config.batch_rows, source, start, len(parts)):
                yield raw, *images.decode_batch([row.data for row in raw.rows], config.image_size, pool)

        for raw, pixels, reasons in sources.prefetch(decoded()):
            part = process_batch(config, inputs, reference, raw, pixels, reasons, seen)
            work.write(f"part-{raw.number:06d}", part)
            take(part)
    return _join(parts, work, config.image_size)


def process_batch(
    config: BuildConfig,
    inputs: Inputs,
    reference: Reference,
    raw: sources.RawBatch,
    pixels: np.ndarray,
    reasons: list[str | None],
    seen: set[bytes],
) -> dict[str, np.ndarray]:
    """One batch through the stages; `seen` holds the digests of earlier batches and is not changed here."""
    tally = Tally()
    offset = inputs.corpus.label_offsets[raw.source]
    label = np.array([row.label + offset if row.label >= 0 else -1 for row in raw.rows], np.int64)

    tally.add("decode", len(reasons), _count(reason for reason in reasons if reason))
    rows = np.flatnonzero([reason is None for reason in reasons])

    digest = [outliers.pixel_sha256(pixels[row]) for row in rows]
    first: dict[str, int] = {}
    for row, value in zip(rows, digest, strict=True):
        if value.encode() not in seen:
            first.setdefault(value, int(row))
    tally.add("exact duplicates", len(rows), {"same pixels as an earlier row": len(rows) - len(first)})
    rows, digest = np.array(list(first.values()), np.int64), list(first)
    new_digests = np.array(digest, dtype="S64")

    excluded = [inputs.labels.excluded.get(int(label[row])) for row in rows]
    tally.add("excluded labels", len(rows), _count(reason.split(":")[0] for reason in excluded if reason))
    tally.labels_before(label[rows], inputs.labels.showing_id)
    rows = rows[[reason is None for reason in excluded]]

    embedded = inputs.embedder.embed(pixels[rows])
    descriptor = copy_descriptor(pixels[rows])
    leak_similarity = np.full(len(rows), -1, np.float32)
    free = np.ones(len(rows), bool)
    if reference.protected is not None:
        found = reference.protected.search(pixels[rows], descriptor)
        free[found.query] = False
        leak_similarity = found.largest_left
        kinds = {kind: len(np.unique(found.query[found.kind == kind])) for kind in ("exact", "near")}
        kinds["near"] -= len(np.intersect1d(found.query[found.kind == "exact"], found.query[found.kind == "near"]))
        tally.add("leaks", len(rows), {"exact copy": kinds["exact"], "near-duplicate": kinds["near"]})
    else:
        tally.add("leaks", len(rows), {})

    similarity, nearest = reference.id_index.nearest(embedded.vectors)
    foreign = similarity < reference.id_threshold.similarity
    near_id = int((free & ~foreign).sum())
    tally.add("ID-class neighbours", int(free.sum()), {"as near as held-out ID images": near_id})
    keep = np.flatnonzero(free & foreign)
    rows = rows[keep]

    part = {
        "image": pixels[rows],
        "key": np.array([raw.rows[row].key.encode() for row in rows], dtype=bytes),
        "sha256": np.array([outliers.pixel_sha256(pixels[row]) for row in rows], dtype="S64"),
        "label": label[rows],
        "id_similarity": similarity[keep],
        "id_class": reference.id_index.labels[nearest[keep]].astype(np.int64),
        "leak_similarity": leak_similarity[keep],
        "descriptor": descriptor[keep],
        "digest": new_digests,
        "tally": np.array(tally.to_json()),
        "next": np.array([raw.source, raw.start + len(raw.rows), len(raw.rows)]),
    }
    if embedded.energy is not None:
        part["energy"] = embedded.energy[keep]
    return part


def _count(reasons: Iterator[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return counts


def _join(parts: list[dict[str, np.ndarray]], work: Workspace, image_size: int) -> dict[str, np.ndarray]:
    """Columns over all parts. Images are gathered in a memory-mapped file, which the kernel may page out."""
    if not parts:
        raise InputError("--source: the corpus holds no rows; name another")
    rows = sum(len(part["key"]) for part in parts)
    shape = (max(1, rows), image_size, image_size, 3)  # a file of no bytes cannot be mapped
    gathered = np.memmap(work.folder / "images.bin", np.uint8, "w+", shape=shape)[:rows]
    start = 0
    for number, part in enumerate(parts):
        gathered[start : start + len(part["key"])] = work.read_array(f"part-{number:06d}", "image")
        start += len(part["key"])
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {"image": gathered, **columns}
