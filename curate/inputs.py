"""Everything a build reads, resolved and described before any work starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate import exclusions, semantics, sources
from curate.config import BuildConfig
from curate.embedders import Embedder, open_embedder
from curate.record import versions
from srood import datasets
from srood.errors import InputError
from srood.hashes import file_sha256


@dataclass(frozen=True)
class ExcludedLabels:
    """Corpus label -> why it is excluded; and `showing_id`, the labels to measure contamination by, excluded or not."""

    excluded: dict[int, str]
    showing_id: dict[int, str]
    file_sha256: str = ""
    note: str = ""


@dataclass(frozen=True)
class Inputs:
    """Everything a build reads, resolved and found before any work starts."""

    corpus: sources.Corpus
    id_train: datasets.ImageSource
    id_test: datasets.ImageSource | None
    protected: tuple[datasets.ImageSource, ...]
    labels: ExcludedLabels
    embedder: Embedder
    recipe: str


def resolve_inputs(config: BuildConfig) -> Inputs:
    """Find every input of a build; the hash of all that decides the result is its recipe: same recipe, same bytes.

    Raises:
        InputError: an input cannot be found or does not fit.
    """
    train_spec, test_spec = datasets.id_specs(config.id)
    id_train = datasets.resolve(train_spec)
    id_test = datasets.resolve(test_spec) if test_spec else None
    also = [datasets.resolve(spec) for spec in config.protect if spec != "none"]
    left_out = (config.exclude_indices, config.exclude_indices_base)
    corpus = sources.open_corpus(config.source, config.size, config.source_license, *left_out)
    return put_together(config, corpus, id_train, id_test, also, open_embedder(config.embedder))


def put_together(
    config: BuildConfig,
    corpus: sources.Corpus,
    id_train: datasets.ImageSource,
    id_test: datasets.ImageSource | None,
    also_protected: Sequence[datasets.ImageSource],
    embedder: Embedder,
) -> Inputs:
    """The inputs of a build from its opened parts; which labels are excluded, and the recipe, follow from these.

    Raises:
        InputError: the exclusions cannot be read or do not fit the corpus.
    """
    named = [] if "none" in config.protect else [id_train] + ([id_test] if id_test else [])
    named += also_protected
    labels = _exclusions(config, corpus, id_train)
    recipe = {
        "config": config.recorded(),
        "sources": corpus.describe(),
        "missing": [entry["set"] for entry in corpus.missing],
        "id": [identity(source) for source in (id_train, id_test) if source],
        "protected": [identity(source) for source in named],
        "exclusions": labels.file_sha256,
        "embedder": embedder.fingerprint,
        "versions": versions(),
    }
    return Inputs(corpus, id_train, id_test, tuple(named), labels, embedder, hash_of(recipe))


def identity(source: datasets.ImageSource) -> dict[str, Any]:
    """What finds an ID or protected set again: its name, rows, fingerprint and, of one on the Hub, the commit."""
    named = {"name": source.name, "rows": source.num_rows()}
    return {**named, "revision": source.revision or "unknown", "fingerprint": source.fingerprint()}


def hash_of(recipe: dict[str, Any]) -> str:
    """SHA-256 (hex) of a JSON document."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _exclusions(config: BuildConfig, corpus: sources.Corpus, id_train: datasets.ImageSource) -> ExcludedLabels:
    text, lines = "", tuple[str, ...]()
    try:
        found, text, lines = exclusions.load_for(config.id, id_train.class_names)
        semantics.check_applicable(corpus.class_names, found, corpus.name, require_match=False)
    except InputError as error:
        lines = (f"no label was excluded: {error}",)
        known = {}
    else:
        known = semantics.match_labels(corpus.class_names, found)
    if config.exclude_labels == "none":
        return ExcludedLabels({}, known)
    if config.exclude_labels == "auto":
        text_sha256 = hashlib.sha256(text.encode()).hexdigest() if known else ""
        return ExcludedLabels(known, known, text_sha256, "; ".join(lines))
    path = Path(config.exclude_labels)
    given = semantics.load_exclusions(path)
    semantics.check_applicable(corpus.class_names, given, corpus.name)
    matched = semantics.match_labels(corpus.class_names, given)
    unmatched = semantics.unmatched_entries(corpus.class_names, given)
    few = 0 < len(unmatched) < 20  # a long list is for many corpora
    note = f"{path}: no label of the corpus is {', '.join(unmatched)}" if few else ""
    return ExcludedLabels(matched, known or matched, file_sha256(path), note)
