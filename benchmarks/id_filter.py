"""How well the ID-class filter finds rows that show an ID class, judged by corpus labels, which it does not see.

    python benchmarks/id_filter.py --corpus tiny-imagenet:corpus --id cifar10 \
        --embedder thumbnail --embedder checkpoint:resnet20-cifar10.safetensors

For each embedder: AUROC of the similarity to the nearest ID training image for "the label shows an ID class"; and for
each `--id-recall`, what share of such rows and of all other rows is dropped, and the contamination before and after.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from curate import neighbours, semantics
from curate.embedders import open_embedder
from srood import datasets, manifests

RECALLS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def first(images: datasets.Images, limit: int | None) -> datasets.Images:
    """The first rows of a set."""
    rows = slice(limit)
    return replace(images, images=images.images[rows], labels=images.labels[rows])


def measure(
    embedder_spec: str, corpus: datasets.Images, train: datasets.Images, test: datasets.Images, shows: np.ndarray
):
    """AUROC and one row per recall for one embedder."""
    start = time.perf_counter()
    embedder = open_embedder(embedder_spec)
    index = neighbours.IdIndex(embedder.embed(train.images).vectors, train.labels)
    held_out, _ = index.nearest(embedder.embed(test.images).vectors)
    similarity, _ = index.nearest(embedder.embed(corpus.images).vectors)
    rows = []
    for recall in RECALLS:
        dropped = similarity >= neighbours.calibrate(held_out, recall).similarity
        rows.append(
            {
                "id_recall": recall,
                "dropped_showing_id": float(dropped[shows].mean()),
                "dropped_others": float(dropped[~shows].mean()),
                "contamination_after": float(shows[~dropped].mean()) if (~dropped).any() else None,
                "rows_left": int((~dropped).sum()),
            }
        )
    return {
        "embedder": embedder_spec.split(":")[0],
        "auroc": float(roc_auc_score(shows, similarity)),
        "contamination_before": float(shows.mean()),
        "recalls": rows,
        "seconds": time.perf_counter() - start,
    }


def main() -> None:
    """Parse, measure, print a table and (``--json``) write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="tiny-imagenet:corpus")
    parser.add_argument("--id", default="cifar10")
    parser.add_argument("--embedder", action="append")
    parser.add_argument("--limit", type=int, help="use only so many rows of each set (for a quick look)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    train_spec, test_spec = datasets.id_specs(options.id)
    if test_spec is None:
        raise SystemExit(f"--id {options.id}: needs a test split")
    specs = (options.corpus, train_spec, test_spec)
    corpus, train, test = (first(datasets.load_images(spec), options.limit) for spec in specs)
    packaged = manifests.find("exclusions", options.id)
    if packaged is None:
        raise SystemExit(f"--id {options.id}: no exclusions tell which labels show its classes")
    showing = semantics.match_labels(corpus.class_names, semantics.load_exclusions(packaged))
    shows = np.isin(corpus.labels, list(showing))

    results = [measure(spec, corpus, train, test, shows) for spec in options.embedder or ["thumbnail"]]
    print(f"{options.corpus}: {len(shows):,} rows, {shows.mean():.2%} with a label that shows a class of {options.id}")
    for result in results:
        print(f"\n{result['embedder']}: AUROC {result['auroc']:.4f}  ({result['seconds']:.0f} s)")
        print("id-recall  dropped of ID-class rows  dropped of others  contamination after  rows left")
        for row in result["recalls"]:
            print(
                f"{row['id_recall']:9.2f}  {row['dropped_showing_id']:24.2%}  {row['dropped_others']:17.2%}"
                f"  {row['contamination_after'] or 0:19.2%}  {row['rows_left']:9,}"
            )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
