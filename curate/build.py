"""The pipeline from corpus to outlier set, in the order in which things happen.

Protected sets are small and the corpus is not: the former are indexed, the latter streams past in batches. What a batch
leaves behind is stored as a part in the workspace, so an interrupted build goes on with the next batch. Nothing depends
on the number of workers: they only decode.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from curate import dedup, leaks, neighbours, sampling, semantics, sources
from curate.embedders import Embedder, open_embedder
from curate.fingerprints import copy_descriptor
from curate.record import Tally, contamination, versions
from curate.workspace import Workspace
from srood import datasets, images, manifests, outliers
from srood.errors import InputError
from srood.progress import progress_bar

DEFAULT_ID_RECALL = 0.5  # docs/curation.md: where the contamination removed per outlier lost starts to fall off
HELD_OUT = 0.1  # of the ID images, where there is no ID test set to calibrate on
CALIBRATION_IMAGES = 2_000


@dataclass(frozen=True)
class BuildConfig:
    """Settings of a build; the command's options of the same names."""

    source: tuple[str, ...] = ("tinyimages-alt",)
    size: int = 300_000
    id: str = "cifar10"
    out: Path = Path("manifests/mini.h5")
    image_size: int = 32
    seed: int = 0
    embedder: str = "thumbnail"
    exclude_labels: str = "auto"
    protect: tuple[str, ...] = ()
    id_recall: float = DEFAULT_ID_RECALL
    strict_size: bool = False
    overwrite: bool = False
    dry_run: bool = False
    workers: int | None = None
    batch_rows: int = 1024
    shard_rows: int = 10_000

    def recorded(self) -> dict[str, Any]:
        """The settings that decide the bytes of the set, as the manifest holds them."""
        return {
            "source": list(self.source),
            "size": self.size,
            "id": self.id,
            "image_size": self.image_size,
            "seed": self.seed,
            "embedder": self.embedder.split(":")[0],
            "exclude_labels": Path(self.exclude_labels).name,
            "protect": list(self.protect),
            "id_recall": self.id_recall,
            "batch_rows": self.batch_rows,
            "shard_rows": self.shard_rows,
        }


@dataclass(frozen=True)
class BuildResult:
    """What came out: `manifest` as written (or as it would be), `written` False for a dry run, notes for people."""

    out: Path
    manifest: dict[str, Any]
    written: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inputs:
    """Everything a build reads, resolved and found before any work starts."""

    corpus: sources.Corpus
    id_train: datasets.ImageSource
    id_test: datasets.ImageSource | None
    protected: tuple[datasets.ImageSource, ...]
    exclusions: dict[int, str]
    known_id_labels: dict[int, str]
    embedder: Embedder
    recipe: dict[str, Any] = field(repr=False)


def build(config: BuildConfig, console: Console | None = None) -> BuildResult:
    """Build an outlier set.

    Raises:
        InputError: an input cannot be found or used, the output exists with other content, or (`strict_size`) the
            corpus gives fewer rows than asked for.
    """
    console = console or Console(stderr=True)
    _check(config)
    inputs = resolve_inputs(config)
    work = Workspace(config.out, inputs.recipe)
    existing = _existing(config, work)
    if existing is not None:
        work.remove()
        return BuildResult(config.out, existing, True, (f"{config.out} already holds this set, verified",))

    notes = []
    if work.resumed:
        notes.append("went on with the parts of an interrupted build")
    notes += [f"{entry['set']} is missing from this set: {entry['why']}" for entry in inputs.corpus.missing]

    reference = prepare_reference(config, inputs, work, console)
    tally = Tally()
    columns = stream_corpus(config, inputs, reference, work, tally, console)

    representative = dedup.group_duplicates(columns["image"], columns.pop("descriptor"), reference.copies)
    kept = np.flatnonzero(representative == np.arange(len(representative)))
    tally.add("near-duplicates", len(representative), {"repeats an earlier row": len(representative) - len(kept)})

    chosen = kept[sampling.uniform(len(kept), config.size, config.seed)]
    tally.add("sample", len(kept), {"not drawn": len(kept) - len(chosen)})
    if len(chosen) < config.size:
        short = f"asked for {config.size:,} rows, the corpus gives {len(chosen):,}"
        if config.strict_size:
            raise InputError(f"--size {config.size}: {short}; add a --source, or leave out --strict-size")
        notes.append(short)
    if not len(chosen):
        raise InputError("no row is left to write; weaken --id-recall or --exclude-labels, or name another --source")

    manifest = describe(config, inputs, reference, work, tally, columns, chosen)
    if config.dry_run:
        return BuildResult(config.out, manifest, False, tuple(notes))
    count = -(-len(chosen) // config.shard_rows)
    outliers.write_set(config.out, _shards(columns, chosen, config.shard_rows), count, manifest, work.folder)
    work.remove()
    return BuildResult(config.out, outliers.read_manifest(config.out), True, tuple(notes))


# ---- before any work ------------------------------------------------------------------------------------------------


def _check(config: BuildConfig) -> None:
    for name, value, least in (("size", config.size, 1), ("image-size", config.image_size, 8)):
        if value < least:
            raise InputError(f"--{name} {value}: must be at least {least}")
    if not 0 <= config.id_recall <= 1:
        raise InputError(f"--id-recall {config.id_recall}: must lie between 0 (off) and 1")
    if config.workers is not None and config.workers < 1:
        raise InputError(f"--workers {config.workers}: must be at least 1")
    if config.out.suffix != ".h5":
        raise InputError(f"--out {config.out}: must end in .h5")
    if config.out.is_dir():
        raise InputError(f"--out {config.out}: is a folder; name a file in it")
    try:
        config.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {config.out}: its folder cannot be made ({error.strerror})") from error
    if not os.access(config.out.parent, os.W_OK):
        raise InputError(f"--out {config.out}: its folder is not writable")


def resolve_inputs(config: BuildConfig) -> Inputs:
    """Find every input of a build, and describe them in a recipe: same recipe, same bytes.

    Raises:
        InputError: an input cannot be found or does not fit.
    """
    train_spec, test_spec = datasets.id_specs(config.id)
    id_train = datasets.resolve(train_spec)
    id_test = datasets.resolve(test_spec) if test_spec else None
    named = [] if "none" in config.protect else [id_train] + ([id_test] if id_test else [])
    named += [datasets.resolve(spec) for spec in config.protect if spec != "none"]
    corpus = sources.open_corpus(config.source, config.size)
    exclusions, known, exclusions_hash = _exclusions(config, corpus)
    embedder = open_embedder(config.embedder)
    recipe = {
        "config": config.recorded(),
        "sources": corpus.describe(),
        "missing": [entry["set"] for entry in corpus.missing],
        "id": [source.fingerprint() for source in (id_train, id_test) if source],
        "protected": [source.fingerprint() for source in named],
        "exclusions": exclusions_hash,
        "embedder": embedder.fingerprint,
        "versions": versions(),
    }
    return Inputs(corpus, id_train, id_test, tuple(named), exclusions, known, embedder, recipe)


def _exclusions(config: BuildConfig, corpus: sources.Corpus) -> tuple[dict[int, str], dict[int, str], str]:
    """Excluded labels, labels known to show an ID class (to measure by, whether excluded or not), and the file's hash."""
    packaged = manifests.find("exclusions", config.id)
    known = semantics.match_labels(corpus.class_names, semantics.load_exclusions(packaged)) if packaged else {}
    if config.exclude_labels == "none":
        return {}, known, ""
    if config.exclude_labels == "auto":
        return known, known, outliers.file_sha256(packaged) if packaged else ""
    path = Path(config.exclude_labels)
    exclusions = semantics.load_exclusions(path)
    semantics.check_applicable(corpus.class_names, exclusions)
    matched = semantics.match_labels(corpus.class_names, exclusions)
    return matched, known or matched, outliers.file_sha256(path)


def _existing(config: BuildConfig, work: Workspace) -> dict[str, Any] | None:
    """The manifest at the output where it is this very set; an error where it is another one."""
    if config.dry_run or not config.out.exists():
        return None
    try:
        manifest = outliers.read_manifest(config.out)
        same = manifest.get("recipe") == work.recipe and not outliers.verify(config.out)
    except InputError:
        same = False
    if same:
        return manifest
    if config.overwrite:
        return None
    if not work.resumed:
        work.remove()
    raise InputError(f"--out {config.out}: exists with other content; give --overwrite or another --out")


# ---- what the corpus is compared with -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """Indexed ID and protected images, and the thresholds calibrated on them."""

    protected: leaks.ProtectedIndex | None
    copies: leaks.CopyThreshold
    id_index: neighbours.IdIndex
    id_threshold: neighbours.IdThreshold


def prepare_reference(config: BuildConfig, inputs: Inputs, work: Workspace, console: Console) -> Reference:
    """Decode and index the ID and protected sets, and calibrate both thresholds."""
    loaded: dict[str, datasets.Images] = {}

    def load(source: datasets.ImageSource) -> datasets.Images:
        if source.spec not in loaded:
            loaded[source.spec] = datasets.load_images(source.spec, config.image_size, config.workers)
        return loaded[source.spec]

    with progress_bar("images", console) as progress:
        task = progress.add_task("decode ID and protected sets", total=None, note="")
        train = load(inputs.id_train)
        for source in inputs.protected:
            progress.update(task, note=source.spec)
            load(source)
        progress.update(task, completed=sum(len(x.images) for x in loaded.values()), note="")

        rng = np.random.default_rng(np.random.SeedSequence([config.seed, 0xCA1]))
        copies = leaks.calibrate_copies(_draw(train.images, CALIBRATION_IMAGES, rng), config.seed)
        protected = None
        if inputs.protected:
            task = progress.add_task("index protected images", total=None, note="")
            stacked = np.concatenate([loaded[source.spec].images for source in inputs.protected])
            protected = leaks.ProtectedIndex(stacked, copies)
            progress.update(task, completed=len(stacked))

        stored = work.read("id")
        if stored is None:
            if inputs.id_test is not None:
                held_out, rest, labels = load(inputs.id_test).images, train.images, train.labels
            else:
                order = rng.permutation(len(train.images))
                cut = max(1, int(HELD_OUT * len(order)))
                held_out, rest = train.images[order[:cut]], train.images[np.sort(order[cut:])]
                labels = train.labels[np.sort(order[cut:])]
            vectors = _embed_all(inputs.embedder, rest, progress, "embed ID images")
            held_vectors = _embed_all(inputs.embedder, held_out, progress, "embed held-out ID images")
            index = neighbours.IdIndex(vectors, labels)
            stored = {"vectors": vectors, "labels": labels, "held_out": index.nearest(held_vectors)[0]}
            work.write("id", stored)
        else:
            index = neighbours.IdIndex(stored["vectors"], stored["labels"])
    return Reference(protected, copies, index, neighbours.calibrate(stored["held_out"], config.id_recall))


def _draw(array: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return array[np.sort(rng.permutation(len(array))[:count])]


def _embed_all(embedder: Embedder, array: np.ndarray, progress: Any, description: str) -> np.ndarray:
    task = progress.add_task(description, total=len(array), note="")
    vectors = []
    for start in range(0, len(array), 1024):
        vectors.append(embedder.embed(array[start : start + 1024]).vectors)
        progress.advance(task, len(vectors[-1]))
    return np.concatenate(vectors)


# ---- the corpus streams past ----------------------------------------------------------------------------------------


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
    """One batch through the stages, cheap before dear. `seen` holds the digests of earlier batches (not changed here)."""
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

    excluded = [inputs.exclusions.get(int(label[row])) for row in rows]
    tally.add("excluded labels", len(rows), _count(reason.split(":")[0] for reason in excluded if reason))
    tally.labels_before(label[rows], inputs.known_id_labels)
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


# ---- what is written ------------------------------------------------------------------------------------------------


def _shards(columns: dict[str, np.ndarray], chosen: np.ndarray, shard_rows: int) -> Iterator[dict[str, np.ndarray]]:
    kept = {name: values[chosen] for name, values in columns.items() if name not in ("image", "leak_similarity")}
    for start in range(0, len(chosen), shard_rows):
        rows = slice(start, start + shard_rows)
        yield {"image": columns["image"][chosen[rows]], **{name: values[rows] for name, values in kept.items()}}


def describe(
    config: BuildConfig,
    inputs: Inputs,
    reference: Reference,
    work: Workspace,
    tally: Tally,
    columns: dict[str, np.ndarray],
    chosen: np.ndarray,
) -> dict[str, Any]:
    """The manifest, but for the table of shards."""
    kept_similarity = columns["leak_similarity"][chosen]
    return {
        "recipe": work.recipe,
        "config": config.recorded(),
        "requested_rows": config.size,
        "resampling": images.RESAMPLING,
        "sources": inputs.corpus.describe(),
        "missing_sources": [entry["set"] for entry in inputs.corpus.missing],
        "unread_sources": list(inputs.corpus.unread),
        "label_names": list(inputs.corpus.class_names),
        "excluded_labels": {inputs.corpus.class_names[i]: why for i, why in sorted(inputs.exclusions.items())},
        "stages": tally.table(),
        "leak_certificate": {
            "protected": [
                {"spec": s.spec, "rows": s.num_rows(), "fingerprint": s.fingerprint()} for s in inputs.protected
            ],
            "threshold": reference.copies.to_dict(),
            "largest_similarity_left": round(float(kept_similarity.max()), 4) if inputs.protected else None,
        },
        "id_filter": {
            "embedder": inputs.embedder.name,
            "embedder_fingerprint": inputs.embedder.fingerprint,
            "id_class_names": list(inputs.id_train.class_names),
            **reference.id_threshold.to_dict(),
        },
        "contamination": contamination(tally, columns["label"][chosen], inputs.known_id_labels),
        "versions": versions(),
    }
