"""How much of a corpus each sampling strategy covers, judged by labels, and how often it draws an ID class.

    python benchmarks/sampling.py --corpus tiny-imagenet:corpus --id cifar10 \
        --embedder checkpoint:resnet20-cifar10.safetensors --size 500

Only `stratified` sees the labels. Printed for each strategy: labels drawn, the entropy of the drawn labels in bits with
the number of equally frequent labels that has it (2^bits), clusters drawn of a k-means that the strategies do not see,
and the share of rows whose label shows an ID class. Once with the corpus as it is, and once with a long tail: of label
number r only one in sqrt(r) of the rows is there.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from curate import exclusions, neighbours, sampling, semantics
from curate.clusters import cluster
from curate.embedders import open_embedder
from srood import datasets

STRATEGIES = ("uniform", "stratified", "clusters", "hard:0.25-0.75", "hard:0.5-0.9", "hard:0.9-0.99", "diverse")


def coverage(labels: np.ndarray, judge: np.ndarray, shows_id: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
    """What the chosen rows cover: labels and clusters drawn, entropy of labels in bits, share that shows an ID class.

    `labels`, `judge` (clusters that the strategy did not see) int64 (N,), `shows_id` bool (N,), `chosen` row numbers.
    """
    _, counts = np.unique(labels[chosen], return_counts=True)
    share = counts / counts.sum()
    bits = float(-(share * np.log2(share)).sum())
    return {
        "rows": len(chosen),
        "labels": len(counts),
        "entropy_bits": bits,
        "effective_labels": 2**bits,
        "clusters": len(np.unique(judge[chosen])),
        "id_share": float(shows_id[chosen].mean()),
    }


def compare(
    columns: dict[str, np.ndarray],
    shows_id: np.ndarray,
    survivors: np.ndarray,
    size: int,
    strategies: tuple[str, ...] = STRATEGIES,
    seeds: int = 3,
) -> list[dict[str, Any]]:
    """Mean coverage over seeds, one entry a strategy; `columns` as `curate.sampling.draw` takes them."""
    judge = np.full(len(shows_id), -1)
    judge[survivors] = cluster(columns["embedding"], survivors, 256, seed=10_000)
    results = []
    for text in strategies:
        drawn = [sampling.draw(sampling.parse(text), columns, survivors, size, seed).rows for seed in range(seeds)]
        each = [coverage(columns["label"], judge, shows_id, rows) for rows in drawn]
        results.append({"strategy": text} | {key: float(np.mean([one[key] for one in each])) for key in each[0]})
    return results


def long_tail(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Rows, ascending, of a corpus in which label number r, in random order, keeps one in sqrt(r) of its rows."""
    rng = np.random.default_rng(seed)
    kept = []
    for rank, label in enumerate(rng.permutation(np.unique(labels)), 1):
        rows = rng.permutation(np.flatnonzero(labels == label))
        kept.append(rows[: max(1, round(len(rows) / rank**0.5))])
    return np.sort(np.concatenate(kept))


def load(corpus_spec: str, id_name: str, embedder_spec: str, limit: int | None) -> tuple[dict, np.ndarray, np.ndarray]:
    """Columns as `curate.sampling.draw` takes them, which rows show an ID class by their label, and all row numbers."""
    loaded = [datasets.load_images(spec) for spec in (corpus_spec, datasets.id_specs(id_name)[0])]
    corpus, train = (replace(s, images=s.images[:limit], labels=s.labels[:limit]) for s in loaded)
    found, _, _ = exclusions.load_for(id_name, train.class_names)
    shows = np.isin(corpus.labels, list(semantics.match_labels(corpus.class_names, found)))
    return columns_of(corpus, train, embedder_spec), shows, np.arange(len(shows))


def columns_of(corpus: datasets.Images, train: datasets.Images, embedder_spec: str) -> dict[str, np.ndarray]:
    """Columns of a corpus as `curate.sampling.draw` takes them."""
    embedder = open_embedder(embedder_spec)
    vectors = embedder.embed(corpus.images).vectors
    similarity = neighbours.IdIndex(embedder.embed(train.images).vectors, train.labels).nearest(vectors)[0]
    return {"label": corpus.labels, "embedding": vectors.astype(np.float16), "id_similarity": similarity}


def main() -> None:
    """Parse, measure, print a table and (``--json``) write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="tiny-imagenet:corpus")
    parser.add_argument("--id", default="cifar10")
    parser.add_argument("--embedder", default="thumbnail")
    parser.add_argument("--size", type=int, default=500)
    parser.add_argument("--limit", type=int, help="use only so many rows of each set (for a quick look)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    columns, shows, everything = load(options.corpus, options.id, options.embedder, options.limit)
    results = {}
    for name, survivors in (("as it is", everything), ("long tail", long_tail(columns["label"]))):
        results[name] = compare(columns, shows, survivors, options.size)
        labels = len(np.unique(columns["label"][survivors]))
        print(f"\n{options.corpus}, {name}: {len(survivors):,} rows of {labels} labels")
        print("strategy          rows  labels  entropy (bits)  2^entropy  clusters of 256  shows an ID class")
        for row in results[name]:
            print(
                f"{row['strategy']:16}  {row['rows']:4.0f}  {row['labels']:6.1f}  {row['entropy_bits']:14.2f}"
                f"  {row['effective_labels']:9.1f}  {row['clusters']:15.1f}  {row['id_share']:17.1%}"
            )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
