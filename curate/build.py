"""The pipeline from corpus to outlier set, in the order in which things happen.

Protected sets are small and the corpus is not: the former are indexed, the latter streams past in batches. What a batch
leaves behind is stored as a part in the workspace, so an interrupted build goes on with the next batch. Nothing depends
on the number of workers, which only decode, nor on the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console

from curate import contamination, dedup, sampling
from curate.config import BuildConfig, check
from curate.digests import hexadecimal
from curate.engines.engine import Engine, LocalEngine
from curate.evidence import ID, ID_NESS, Evidence, Partners, narrowest
from curate.inputs import Inputs, identity, resolve_inputs
from curate.outputs import BuildResult, existing
from curate.record import Tally, measured_contamination, versions
from curate.reference import Reference, prepare_reference
from curate.stream import MeasuredBatches, stream_corpus
from curate.survivors import Survivors
from curate.workspace import GO_ON, Workspace
from srood import images, outliers
from srood.errors import InputError
from srood.files import writing
from srood.locks import locked
from srood.progress import progress_bar


def build(
    config: BuildConfig,
    console: Console | None = None,
    inputs: Inputs | None = None,
    measured: MeasuredBatches | None = None,
    engine: Engine | None = None,
) -> BuildResult:
    """Build an outlier set, out of `inputs` where they were found already, else out of what the settings name.

    Where the batches of the corpus were `measured` elsewhere, the corpus itself is not read. The `engine`
    (`curate.engines`; by default the local one) decides where they are measured otherwise, and nothing else.

    Raises:
        InputError: an input cannot be found or used, the output exists with other content, or (`strict_size`) the
            corpus gives fewer rows than asked for; another process builds there; the disk is full, or an input is gone.
    """
    check(config)
    inputs = inputs or resolve_inputs(config)
    with locked(config.out, "--out "), writing(config.out, "--out ", GO_ON):
        already = None if config.dry_run else existing(config.out, inputs.recipe, config.overwrite)
        if already is not None:
            return BuildResult(config.out, already, True, (f"{config.out} already holds this set, verified",))
        engine = engine or LocalEngine()
        inputs = engine.prepare(config, inputs)
        work = Workspace(config.out, inputs.recipe)
        return _build(config, console or Console(stderr=True), inputs, measured, engine, work)


def _build(
    config: BuildConfig,
    console: Console,
    inputs: Inputs,
    measured: MeasuredBatches | None,
    engine: Engine,
    work: Workspace,
) -> BuildResult:
    notes = []
    if work.resumed:
        notes.append("went on with the parts of an interrupted build")
    notes += [f"left out: {entry['why']}" for entry in inputs.corpus.missing]
    notes += inputs.corpus.notes()
    notes += [inputs.corpus.excluded_rows.note()] if inputs.corpus.excluded_rows else []
    if config.resolved_id_recall() == 0 and config.id_recall is None:
        notes.append("the ID-class filter is off: thumbnails cannot tell classes; give --embedder checkpoint:PATH")
    if inputs.labels.note:
        notes.append(inputs.labels.note)

    if measured is not None:
        work.write("id", measured.id_images())
    reference = prepare_reference(config, inputs, work, console, search=measured is None)
    tally, evidence = Tally(), Evidence(config.seed)
    survivors = stream_corpus(
        config, inputs, reference, work, tally, evidence, console, measured, engine.measured_batches
    )
    columns = survivors.columns
    narrow = narrowest(columns["leak_similarity"], columns.pop("leak_row"), reference.protected_batch())
    reference.release_protected()  # the next stage builds an index of its own

    count, whole = len(survivors), survivors.batch()
    with_leaks = survivors.with_leaks()
    leaked = np.arange(len(with_leaks[0])) >= count
    with progress_bar("images", console) as progress:
        progress.add_task(f"near-duplicates among {len(leaked):,} images", total=None, note="")
        found = dedup.find_groups(
            *with_leaks, reference.copies, leaked, engine.search_within, folder=work.folder, seed=config.seed
        )
    representative = found.representative[:count]
    kept = np.flatnonzero(representative == np.arange(count))
    with_leak = int((representative == dedup.WITH_A_LEAK).sum())  # a group that touches a protected image goes whole
    dropped = {"repeats an earlier row": count - len(kept) - with_leak, "in a group with a leak": with_leak}
    tally.add("near-duplicates", count, dropped)
    repeats = np.flatnonzero((representative >= 0) & (representative != np.arange(count)))
    first = Partners(whole, representative[repeats])
    evidence.drop_all("near-duplicates", "repeats an earlier row", whole, repeats, first)
    evidence.drop_all("near-duplicates", "in a group with a leak", whole, np.flatnonzero(representative < 0))

    plan = sampling.parse(config.sample)
    sample = sampling.draw(
        plan, {**columns, "embedding": survivors.embedding}, kept, config.size, config.seed, config.clusters
    )
    notes += sampling.remarks(plan, inputs.embedder.name, columns["label"][kept])
    chosen, columns["cluster"] = sample.rows, sample.cluster
    not_drawn = np.setdiff1d(kept, np.concatenate([chosen, sample.outside]))
    tally.add("sample", len(kept), {"outside the band": len(sample.outside), "not drawn": len(not_drawn)})
    evidence.drop_all("sample", "outside the band", whole, sample.outside)
    evidence.drop_all("sample", "not drawn", whole, not_drawn)
    if len(chosen) < config.size:
        short = f"asked for {config.size:,} rows, the corpus gives {len(chosen):,}"
        if config.strict_size:
            work.remove()
            band = f"widen the band of --sample {config.sample}, which leaves out {len(sample.outside):,}, "
            advice = f"add a --source, {band if len(sample.outside) else ''}or leave out --strict-size"
            raise InputError(f"--size {config.size}: {short}; {advice}")
        notes.append(short)
    if not len(chosen):
        work.remove()
        why = f"no row is left to write (of {tally.table()[0]['seen']:,} rows: {tally.reasons()})"
        weaker = f", or weaken what drops them ({', '.join(options)})" if (options := tally.weakened_by()) else ""
        raise InputError(f"{why}; name another --source{weaker}")

    manifest = describe(config, inputs, reference, work, tally, columns, chosen) | {"sampling": sample.record}
    manifest["near_duplicates"] = {"index": found.index}
    if config.dry_run:
        return BuildResult(config.out, manifest, False, tuple(notes))
    evidence.add_kept(whole, columns, chosen, narrow)
    evidence.count(ID, "held-out ID images", reference.held_out)
    evidence.count(ID_NESS, "held-out ID images", reference.held_out_id_ness)
    count = -(-len(chosen) // config.shard_rows)
    shards = _shards(survivors, chosen, config.shard_rows)
    outliers.write_set(config.out, shards, count, manifest, work.folder, evidence.to_arrays())
    work.remove()
    return BuildResult(config.out, outliers.read_manifest(config.out), True, tuple(notes))


# ---- what is written ------------------------------------------------------------------------------------------------


def _shards(survivors: Survivors, chosen: np.ndarray, shard_rows: int) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, len(chosen), shard_rows):
        rows = chosen[start : start + shard_rows]
        kept = {name: values[rows] for name, values in survivors.columns.items() if name != "leak_similarity"}
        yield {"image": survivors.image[rows], **kept, "sha256": hexadecimal(kept["sha256"])}


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
        "resampling": images.REDUCED,
        "sources": inputs.corpus.describe(),
        "missing_sources": [entry["set"] for entry in inputs.corpus.missing],
        "unread_sources": list(inputs.corpus.unread),
        "label_names": list(inputs.corpus.class_names),
        "excluded_labels": {inputs.corpus.class_names[i]: why for i, why in sorted(inputs.labels.excluded.items())},
        "id_labels": {inputs.corpus.class_names[i]: why for i, why in sorted(inputs.labels.showing_id.items())},
        "stages": tally.table(),
        "leak_certificate": {
            "protected": [identity(source) for source in inputs.protected],
            "threshold": reference.copies.to_dict(),
            "largest_similarity_left": round(float(kept_similarity.max()), 4) if inputs.protected else None,
        },
        "id_filter": {
            "embedder": inputs.embedder.name,
            "embedder_fingerprint": inputs.embedder.fingerprint,
            "id_class_names": list(inputs.id_train.class_names),
            "id_sets": [identity(source) for source in (inputs.id_train, inputs.id_test) if source],
            **reference.id_threshold.to_dict(),
            **(reference.id_scale.to_dict() if reference.id_scale else {}),
        },
        "contamination": contamination.describe(
            *measured_contamination(tally, columns["label"][chosen], inputs.labels.showing_id),
            reference.estimate_contamination(columns["id_ness"][chosen], config.seed),
        ),
        "versions": versions(),
    }
