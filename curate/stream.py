"""The corpus streams past in batches; a batch goes through the stages, cheap before dear, and leaves a part behind.

A batch is first measured, which needs no other batch and may happen anywhere; it is then settled, in the order of the
corpus: whether a row repeats the pixels of an earlier batch decides which later stages count it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console

from curate import quality, sources
from curate.config import BuildConfig
from curate.digests import Digests
from curate.embedders import Embedder, Embeddings
from curate.evidence import CLEAREST, DOUBTFUL, LEAK, Batch, Evidence, Partners
from curate.fingerprints import copy_descriptor
from curate.id_stage import drop_id_rows
from curate.inputs import ExcludedLabels, Inputs
from curate.record import Tally
from curate.reference import Reference
from curate.survivors import Survivors
from curate.workspace import PUT_BACK, Workspace
from srood import images
from srood.containers.path_list import PathList
from srood.errors import InputError
from srood.hashes import pixel_sha256
from srood.progress import progress_bar

CLASSES = 1 << 31  # there are not so many: a label beyond is none

Measure = Callable[[BuildConfig, Inputs, Reference, int, int, int], Iterator[tuple[int, dict[str, np.ndarray]]]]


class MeasuredBatches(Protocol):
    """Batches that were measured elsewhere, by number (`curate.ranks`)."""

    def read(self, number: int) -> dict[str, np.ndarray] | None:
        """One batch as `compare_batch` made it, or None after the last."""
        ...

    def id_images(self) -> dict[str, np.ndarray]:
        """The ID sets as they were embedded there."""
        ...


def stream_corpus(
    config: BuildConfig,
    inputs: Inputs,
    reference: Reference,
    work: Workspace,
    tally: Tally,
    evidence: Evidence,
    console: Console,
    measured: MeasuredBatches | None = None,
    measure: Measure | None = None,
) -> Survivors:
    """Take every batch of the corpus through the stages up to the ID stage; return what survives.

    Batches that are `measured` already are not read from the corpus. Others are measured by `measure`, by
    default `measured_batches` (`curate.engines` has others).
    """
    seen, survivors = Digests(), Survivors(work.folder)
    source = start = number = 0
    with progress_bar("images", console) as progress:
        task = progress.add_task("corpus", total=inputs.corpus.num_rows(), note="")

        def take(part: dict[str, np.ndarray]) -> None:
            seen.add(part.pop("digest"))
            tally.add_json(str(part.pop("tally")))
            evidence.take_part(part)
            rows = part.pop("next")
            progress.advance(task, int(rows[2]))
            progress.update(task, note=f"{tally.left('leaks'):,} left")
            survivors.take(part)

        while (part := work.read(f"part-{number:06d}")) is not None:
            source, start = int(part["next"][0]), int(part["next"][1])
            take(part)
            number += 1
        if measured is not None:
            batches = _stored(measured, number)
        else:
            batches = (measure or measured_batches)(config, inputs, reference, source, start, number)
        for number, batch in sources.prefetch(batches, 1):  # the next is measured while this one is settled and stored
            part = settle_batch(batch, seen, inputs.labels, reference, config.seed)
            work.write(f"part-{number:06d}", part)
            take(part)
    if not survivors.started:
        raise InputError("--source: the corpus holds no rows; name another")
    survivors.join()
    drop_id_rows(survivors, reference, tally, evidence)
    return survivors


def measured_batches(
    config: BuildConfig,
    inputs: Inputs,
    reference: Reference,
    source: int,
    start: int,
    number: int,
    count: int | None = None,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Number and measurements of `count` batches of the corpus, or all, from row `start` of set `source` on.

    `number` is that of the first. Decoding and what needs the pixels alone happen on threads, ahead of the rest.
    """
    with ThreadPoolExecutor(config.workers or os.cpu_count() or 1) as pool:

        def described() -> Iterator[tuple[int, dict[str, np.ndarray]]]:
            parts = sources.raw_batches(inputs.corpus, config.batch_rows, source, start, number, config.limits.bytes)
            for place, of_batch in islice(groupby(parts, key=lambda part: part.number), count):
                yield place, describe_batch(config, inputs, *_decoded(of_batch, config, inputs, pool))

        for place, batch in sources.prefetch(described()):
            yield place, compare_batch(batch, inputs, reference)


def _decoded(
    parts: Iterable[sources.RawBatch], config: BuildConfig, inputs: Inputs, pool: ThreadPoolExecutor
) -> tuple[sources.RawBatch, np.ndarray, list[str | None], np.ndarray]:
    """A batch without its encoded images, which are freed part by part; and what `describe_batch` takes with it."""
    whole: sources.RawBatch | None = None
    pixels, reasons, originals = [], list[str | None](), []
    for part in parts:
        originals.append(np.zeros((len(part.rows), 2), np.int64))  # width and height before resizing
        encoded = [row.data for row in part.rows]
        found = images.decode_batch(encoded, config.image_size, pool, originals[-1], True, config.limits)
        _check_still_there(inputs, part, found[1])
        pixels.append(found[0])
        reasons += found[1]
        rows = [replace(row, data=b"") for row in part.rows]
        part.rows.clear()  # the iterators behind this one hold the part while they read the next
        del encoded
        whole = replace(part, rows=rows) if whole is None else replace(whole, rows=whole.rows + rows)
    assert whole is not None, "a batch has at least one part"
    return whole, np.concatenate(pixels), reasons, np.concatenate(originals)


def _stored(measured: MeasuredBatches, number: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    while (batch := measured.read(number)) is not None:
        yield number, batch
        number += 1


def describe_batch(
    config: BuildConfig,
    inputs: Inputs,
    raw: sources.RawBatch,
    pixels: np.ndarray,
    reasons: list[str | None],
    originals: np.ndarray,
) -> dict[str, np.ndarray]:
    """What is known of a batch by its pixels and labels alone.

    Descriptors, and later embeddings and copies, are of the rows that are the first with their pixels in the batch and
    whose label is not excluded (`row`, their numbers): what is embedded together does not depend on other batches, so
    that neither do the last bits of what comes out. `originals` (N, 2) are width and height of the images before they
    were brought to size.
    """
    offset = inputs.corpus.label_offsets[raw.source]
    label = np.array([row.label + offset if 0 <= row.label < CLASSES else -1 for row in raw.rows], np.int64)
    rows = np.flatnonzero([reason is None for reason in reasons])
    flaws: list[str | None] = [None] * len(raw.rows)
    found_flaws = quality.problems(pixels[rows], originals[rows], config.quality, config.max_upscale)
    for row, flaw in zip(rows.tolist(), found_flaws, strict=True):
        flaws[row] = flaw

    digest = np.zeros(len(raw.rows), "S64")
    first: dict[str, int] = {}
    for row in rows.tolist():
        if flaws[row] is None:
            value = pixel_sha256(pixels[row])
            digest[row] = value.encode()
            first.setdefault(value, row)
    rows = np.array([row for row in first.values() if int(label[row]) not in inputs.labels.excluded], np.int64)

    return {
        "key": _texts([row.key for row in raw.rows]),
        "image": pixels,
        "label": label,
        "undecodable": _texts(reasons),
        "flaw": _texts(flaws),
        "digest": digest,
        "row": rows,
        "descriptor": copy_descriptor(pixels[rows]),
        "next": np.array([raw.source, raw.start + len(raw.rows), len(raw.rows)]),
    }


def _check_still_there(inputs: Inputs, raw: sources.RawBatch, reasons: Sequence[str | None]) -> None:
    """See that files which cannot be read are bad, and not gone with their disk: that is no property of a corpus."""
    container = inputs.corpus.sources[raw.source].container
    for row, reason in zip(raw.rows, reasons, strict=True):
        if reason == images.UNREADABLE and isinstance(row.data, Path):
            listed = container.path if isinstance(container, PathList) else row.data  # a list may name anything
            if not os.path.lexists(listed):
                raise InputError(f"{listed}: is gone since the build began; {PUT_BACK}")


def compare_batch(described: dict[str, np.ndarray], inputs: Inputs, reference: Reference) -> dict[str, np.ndarray]:
    """A described batch with embeddings, leaks and the nearest ID image of each row: all that `settle_batch` needs."""
    rows, descriptor = described["row"], described["descriptor"]
    pixels = described["image"][rows]
    embedded = _embedded(inputs.embedder, pixels)
    leak_similarity, leak_row = np.full(len(rows), -1, np.float32), np.full(len(rows), -1)
    leak: list[str | None] = [None] * len(rows)
    if reference.protected is not None:
        found = reference.protected.search(pixels, descriptor)
        leak_similarity, leak_row = found.largest_left.copy(), found.nearest_left.copy()
        leaked, best = np.unique(found.query, return_index=True)  # exact before near, then the most similar
        leak_similarity[leaked], leak_row[leaked] = found.similarity[best], found.protected[best]
        for place, kind in zip(leaked, found.kind[best], strict=True):
            leak[place] = "exact copy" if kind == "exact" else "near-duplicate"
    similarity, nearest = reference.id_index.nearest(embedded.vectors)

    batch = {
        **described,
        "embedding": embedded.vectors.astype(np.float16),
        "leak": _texts(leak),
        "leak_similarity": leak_similarity,
        "leak_row": leak_row,
        "id_similarity": similarity,
        "id_class": reference.id_index.labels[nearest].astype(np.int64),
    }
    return batch if embedded.energy is None else {**batch, "energy": embedded.energy}


def _embedded(embedder: Embedder, pixels: np.ndarray) -> Embeddings:
    if len(pixels):
        return embedder.embed(pixels)
    # not one row of the batch can be used: what is made of one that is not there says how wide embeddings are
    one = embedder.embed(np.zeros((1, *pixels.shape[1:]), np.uint8))
    return Embeddings(one.vectors[:0], None if one.energy is None else one.energy[:0])


def settle_batch(
    measured: dict[str, np.ndarray], seen: Digests, labels: ExcludedLabels, reference: Reference, seed: int
) -> dict[str, np.ndarray]:
    """One measured batch through the stages; `seen` holds the digests of earlier batches and is not changed here."""
    tally, evidence = Tally(), Evidence(seed)
    label, digest = measured["label"], measured["digest"]
    batch = Batch.of_columns(measured)

    def drop(stage: str, rows: np.ndarray, reasons: Sequence[str | None], **more: Any) -> np.ndarray:
        """Count and show what a stage dropped of `rows` for `reasons`; return which of them are left, bool."""
        tally.add(stage, len(rows), _count(reason for reason in reasons if reason))
        evidence.drop(stage, batch, rows, reasons, **more)
        return np.array([reason is None for reason in reasons], bool)

    rows = np.arange(len(label))
    rows = rows[drop("decode", rows, _reasons(measured["undecodable"]), pictures=False)]
    rows = rows[drop("quality", rows, _reasons(measured["flaw"][rows]))]

    first: dict[bytes, int] = {}
    for row, value, known in zip(rows.tolist(), digest[rows].tolist(), seen.holds(digest[rows]).tolist(), strict=True):
        if not known:
            first.setdefault(value, row)
    repeats = [None if first.get(digest[row]) == row else "same pixels as an earlier row" for row in rows]
    rows = rows[drop("exact duplicates", rows, repeats)]

    excluded = [labels.excluded.get(int(label[row])) for row in rows]
    tally.labels_before(label[rows], labels.showing_id)
    rows = rows[drop("excluded labels", rows, [reason.split(":")[0] if reason else None for reason in excluded])]

    place = np.searchsorted(measured["row"], rows)  # of each row that is left among those that were measured
    leak_similarity, leak_row = measured["leak_similarity"][place], measured["leak_row"][place]
    leaks = _reasons(measured["leak"][place])
    similar: dict[str, Any] = {}
    protected = reference.protected_batch()
    if protected is not None:
        similar = {"similarity": leak_similarity, "partners": Partners(protected, leak_row)}
        leaked = np.flatnonzero([leak is not None for leak in leaks])
        pairs = leak_similarity[leaked], Partners(protected, leak_row[leaked])
        evidence.pairs(CLEAREST, batch, rows[leaked], *pairs, largest=True)
        evidence.pairs(DOUBTFUL, batch, rows[leaked], *pairs, largest=False)
        evidence.count(LEAK, "dropped", leak_similarity[leaked])
    free = drop("leaks", rows, leaks, **similar)
    leaked, left, kept = rows[~free], rows[free], place[free]

    part = {
        "image": measured["image"][left],
        "key": np.array(measured["key"][left].tolist(), dtype=bytes),  # no longer than the longest that is left
        "sha256": digest[left],
        "label": label[left],
        **{name: measured[name][kept] for name in ("id_similarity", "id_class", "embedding")},
        "leak_similarity": leak_similarity[free],
        "leak_row": leak_row[free],
        "descriptor": measured["descriptor"][kept],
        "leaked_image": measured["image"][leaked],  # near-duplicates of leaks go too
        "leaked_descriptor": measured["descriptor"][place[~free]],
        "digest": np.array(list(first), dtype="S64"),
        "tally": np.array(tally.to_json()),
        "next": measured["next"],
        **evidence.to_part(),
    }
    return {**part, "energy": measured["energy"][kept]} if "energy" in measured else part


def _texts(texts: Sequence[str | None]) -> np.ndarray:
    """Texts as fixed-length bytes, None as none at all: what can be stored without pickling."""
    return np.array([(text or "").encode("utf-8", "surrogateescape") for text in texts], dtype=bytes)


def _reasons(texts: np.ndarray) -> list[str | None]:
    """The inverse of `_texts`."""
    return [text.decode("utf-8", "surrogateescape") or None for text in texts.tolist()]


def _count(reasons: Iterator[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return counts
