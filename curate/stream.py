"""The corpus streams past in batches; a batch goes through the stages, cheap before dear, and leaves a part behind."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from rich.console import Console

from curate import id_stage, quality, sources
from curate.config import BuildConfig
from curate.evidence import CLEAREST, DOUBTFUL, LEAK, Batch, Evidence, Partners
from curate.fingerprints import copy_descriptor
from curate.inputs import Inputs
from curate.record import Tally
from curate.reference import Reference
from curate.workspace import Workspace
from srood import images, outliers
from srood.errors import InputError
from srood.progress import progress_bar


def stream_corpus(
    config: BuildConfig,
    inputs: Inputs,
    reference: Reference,
    work: Workspace,
    tally: Tally,
    evidence: Evidence,
    console: Console,
) -> dict[str, np.ndarray]:
    """Take every batch of the corpus through the stages up to the ID stage; return what survives, column by column."""
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
            evidence.take_part(part)
            rows = part.pop("next")
            progress.advance(task, int(rows[2]))
            progress.update(task, note=f"{tally.left('leaks'):,} left")
            for name in ("image", "leaked_image", "embedding"):  # read again when gathered
                part.pop(name)
            parts.append(part)

        while (part := work.read(f"part-{len(parts):06d}")) is not None:
            source, start = int(part["next"][0]), int(part["next"][1])
            take(part)

        def decoded() -> Iterator[tuple[sources.RawBatch, np.ndarray, list[str | None], np.ndarray]]:
            for raw in sources.raw_batches(inputs.corpus, config.batch_rows, source, start, len(parts)):
                originals = np.zeros((len(raw.rows), 2), np.int64)  # width and height before resizing
                encoded = [row.data for row in raw.rows]
                yield raw, *images.decode_batch(encoded, config.image_size, pool, originals), originals

        for raw, pixels, reasons, originals in sources.prefetch(decoded()):
            part = process_batch(config, inputs, reference, raw, pixels, reasons, originals, seen)
            work.write(f"part-{raw.number:06d}", part)
            take(part)
    if not parts:
        raise InputError("--source: the corpus holds no rows; name another")
    embedding = _embeddings(parts, work)
    keep = id_stage.drop_id_rows(parts, embedding, reference, work, tally, evidence)
    return _join(parts, keep, id_stage.compact(embedding, np.concatenate(keep)), work, config.image_size)


def process_batch(
    config: BuildConfig,
    inputs: Inputs,
    reference: Reference,
    raw: sources.RawBatch,
    pixels: np.ndarray,
    reasons: list[str | None],
    originals: np.ndarray,
    seen: set[bytes],
) -> dict[str, np.ndarray]:
    """One batch through the stages; `seen` holds the digests of earlier batches and is not changed here.

    `originals` (N, 2) are width and height of the images before they were brought to size.
    """
    tally, evidence = Tally(), Evidence(config.seed)
    offset = inputs.corpus.label_offsets[raw.source]
    label = np.array([row.label + offset if row.label >= 0 else -1 for row in raw.rows], np.int64)

    batch = Batch([row.key for row in raw.rows], pixels, label)

    def drop(stage: str, rows: np.ndarray, reasons: Sequence[str | None], **more: Any) -> np.ndarray:
        """Count and show what a stage dropped of `rows` for `reasons`; return which of them are left, bool."""
        tally.add(stage, len(rows), _count(reason for reason in reasons if reason))
        evidence.drop(stage, batch, rows, reasons, **more)
        return np.array([reason is None for reason in reasons], bool)

    rows = np.arange(len(raw.rows))
    rows = rows[drop("decode", rows, reasons, pictures=False)]
    flaws = quality.problems(pixels[rows], originals[rows], config.quality, config.max_upscale)
    rows = rows[drop("quality", rows, flaws)]

    digest = {int(row): outliers.pixel_sha256(pixels[row]) for row in rows}
    first: dict[str, int] = {}
    for row, value in digest.items():
        if value.encode() not in seen:
            first.setdefault(value, row)
    seen_before = [first.get(value) != row for row, value in digest.items()]
    repeats = ["same pixels as an earlier row" if again else None for again in seen_before]
    rows = rows[drop("exact duplicates", rows, repeats)]
    new_digests = np.array(list(first), dtype="S64")

    excluded = [inputs.labels.excluded.get(int(label[row])) for row in rows]
    tally.labels_before(label[rows], inputs.labels.showing_id)
    rows = rows[drop("excluded labels", rows, [reason.split(":")[0] if reason else None for reason in excluded])]

    embedded = inputs.embedder.embed(pixels[rows])
    descriptor = copy_descriptor(pixels[rows])
    leak_similarity, leak_row = np.full(len(rows), -1, np.float32), np.full(len(rows), -1)
    leaks: list[str | None] = [None] * len(rows)
    similar: dict[str, Any] = {}
    if reference.protected is not None:
        found = reference.protected.search(pixels[rows], descriptor)
        leak_similarity, leak_row = found.largest_left.copy(), found.nearest_left.copy()
        leaked, best = np.unique(found.query, return_index=True)  # exact before near, then the most similar
        leak_similarity[leaked], leak_row[leaked] = found.similarity[best], found.protected[best]
        for row, kind in zip(leaked, found.kind[best], strict=True):
            leaks[row] = "exact copy" if kind == "exact" else "near-duplicate"
        similar = {"similarity": leak_similarity, "partners": Partners(reference.protected_batch(), leak_row)}
        pairs = leak_similarity[leaked], Partners(reference.protected_batch(), leak_row[leaked])
        evidence.pairs(CLEAREST, batch, rows[leaked], *pairs, largest=True)
        evidence.pairs(DOUBTFUL, batch, rows[leaked], *pairs, largest=False)
        evidence.count(LEAK, "dropped", leak_similarity[leaked])
    free = drop("leaks", rows, leaks, **similar)

    similarity, nearest = reference.id_index.nearest(embedded.vectors)
    keep = np.flatnonzero(free)
    leaked, rows = rows[~free], rows[keep]

    part = {
        "image": pixels[rows],
        "key": np.array([raw.rows[row].key.encode() for row in rows], dtype=bytes),
        "sha256": np.array([digest[row] for row in rows.tolist()], dtype="S64"),
        "label": label[rows],
        "id_similarity": similarity[keep],
        "id_class": reference.id_index.labels[nearest[keep]].astype(np.int64),
        "embedding": embedded.vectors[keep].astype(np.float16),
        "leak_similarity": leak_similarity[keep],
        "leak_row": leak_row[keep],
        "descriptor": descriptor[keep],
        "leaked_image": pixels[leaked],  # near-duplicates of leaks go too
        "leaked_descriptor": descriptor[~free],
        "digest": new_digests,
        "tally": np.array(tally.to_json()),
        "next": np.array([raw.source, raw.start + len(raw.rows), len(raw.rows)]),
        **evidence.to_part(),
    }
    if embedded.energy is not None:
        part["energy"] = embedded.energy[keep]
    return part


def _count(reasons: Iterator[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return counts


def _join(
    parts: list[dict[str, np.ndarray]],
    keep: list[np.ndarray],
    embedding: np.ndarray,
    work: Workspace,
    image_size: int,
) -> dict[str, np.ndarray]:
    """Columns over all parts, of images the rows to `keep`. Images are gathered in a memory-mapped file, which the
    kernel may page out, and so are embeddings.

    `image_and_leaks` and `descriptor_and_leaks` hold the rows of the other columns first and then the leaks.
    """
    rows = sum(len(part["key"]) for part in parts)
    leaks = sum(len(part["leaked_descriptor"]) for part in parts)
    shape = (max(1, rows + leaks), image_size, image_size, 3)  # a file of no bytes cannot be mapped
    gathered = np.memmap(work.folder / "images.bin", np.uint8, "w+", shape=shape)[: rows + leaks]
    start = 0
    for name in ("image", "leaked_image"):
        for number in range(len(parts)):
            stored = work.read_array(f"part-{number:06d}", name)
            stored = stored[keep[number]] if name == "image" else stored
            gathered[start : start + len(stored)] = stored
            start += len(stored)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns["embedding"] = embedding
    descriptor = np.concatenate([columns.pop("descriptor"), columns.pop("leaked_descriptor")])
    return {"image": gathered[:rows], **columns, "image_and_leaks": gathered, "descriptor_and_leaks": descriptor}


def _embeddings(parts: list[dict[str, np.ndarray]], work: Workspace) -> np.ndarray:
    """(rows, D) float16 over all parts, gathered in a memory-mapped file."""
    rows = sum(len(part["key"]) for part in parts)
    shape = (max(1, rows), work.read_array("part-000000", "embedding").shape[1])
    gathered = np.memmap(work.folder / "embeddings.bin", np.float16, "w+", shape=shape)[:rows]
    start = 0
    for number, part in enumerate(parts):
        gathered[start : start + len(part["key"])] = work.read_array(f"part-{number:06d}", "embedding")
        start += len(part["key"])
    return gathered
