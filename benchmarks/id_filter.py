"""How well ID-ness finds rows that show an ID class, judged by corpus labels, which it does not see.

    python benchmarks/id_filter.py --corpus tiny-imagenet:corpus --id cifar10 \
        --embedder thumbnail --embedder checkpoint:resnet20-cifar10.safetensors

For each embedder: AUROC for "the label shows an ID class" of ID-ness, of what it is made of, and of what else was
tried; for each `--id-recall`, what share of such rows and of all other rows is dropped, and the contamination before
and after; and the contamination as estimated without labels. `--limit 4000` takes so many rows of the corpus and of ID
train, and half as many held-out ones, for embedders that are slow.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from curate import contamination, idness, neighbours, semantics
from curate.embedders import Embeddings, open_embedder
from srood import datasets, manifests

RECALLS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
REPORTED_RECALL = 0.7  # of the contamination that is estimated
FITTED = 5000  # rows that iterative fits take


def load(specs: Sequence[str], limit: int | None) -> list[datasets.Images]:
    """Corpus, ID train and held-out ID images; with a limit so many rows of the first two, half as many of the last."""
    cuts = (None, None, None) if limit is None else (limit, limit, limit // 2)
    loaded = [datasets.load_images(spec) for spec in specs]
    return [replace(s, images=s.images[:n], labels=s.labels[:n]) for s, n in zip(loaded, cuts, strict=True)]


def embed(embedder_spec: str, sets: list[datasets.Images]) -> list[Embeddings]:
    """Embeddings of each set."""
    embedder = open_embedder(embedder_spec)
    return [embedder.embed(images.images) for images in sets]


def alternatives(corpus: np.ndarray, train: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Other label-free scores of corpus rows, larger = more like an ID class; the vectors have unit length."""
    classes = idness.IdClasses.fit(train, labels)
    mean = corpus.astype(np.float64).mean(axis=0)
    white = {name: (x - mean) @ classes.whiten for name, x in (("rows", corpus), ("means", classes.means))}
    squared = ((white["rows"][:, None] - white["means"][None]) ** 2).sum(axis=2)
    background = (white["rows"] ** 2).sum(axis=1)  # distance to the mean of the corpus
    own = corpus @ classes.means.T / np.linalg.norm(classes.means, axis=1)
    top = np.sort(corpus @ train.T, axis=1)[:, -10:].mean(axis=1) if len(corpus) * len(train) < 1e9 else None
    scores = {
        "mean of 10 neighbours": top,
        "cosine to class means": own.max(axis=1),
        "Mahalanobis distance": -squared.min(axis=1),
        "Mahalanobis distance less that to the corpus mean": background - squared.min(axis=1),
    }
    some, of_some = train[:FITTED], labels[:FITTED]
    scale = some.std(axis=0) + 1e-6
    probe = LogisticRegression(C=0.003, max_iter=50).fit(some / scale, of_some)
    scores["energy of a logistic probe"] = np.logaddexp.reduce(probe.decision_function(corpus / scale), axis=1)
    against = np.concatenate([some, corpus[:FITTED]]) / scale
    which = np.repeat([1, 0], [len(some), len(against) - len(some)])
    binary = LogisticRegression(C=0.003, max_iter=50).fit(against, which)
    scores["logistic regression, ID train against corpus"] = binary.decision_function(corpus / scale)
    return {name: score for name, score in scores.items() if score is not None}


def measure(spec: str, corpus: datasets.Images, train: datasets.Images, test: datasets.Images, shows: np.ndarray):
    """AUROC by method, one row per recall, and the estimated contamination, for one embedder."""
    start = time.perf_counter()
    seen = embed(spec, [corpus, train, test])
    index = neighbours.IdIndex(seen[1].vectors, train.labels)
    rows, held_out = (idness.Measured(e.vectors, index.nearest(e.vectors)[0], e.energy) for e in (seen[0], seen[2]))
    scale, held = idness.IdScale.calibrate(idness.IdClasses.fit(seen[1].vectors, train.labels), rows, held_out)
    id_ness, parts = scale.score(rows), scale.measurements(rows)
    seconds = time.perf_counter() - start
    scores = {"ID-ness": id_ness, **{f"  of it: {name}": parts[:, i] for i, name in enumerate(idness.WEIGHTS)}}
    scores |= {f"tried: {name}": s for name, s in alternatives(seen[0].vectors, seen[1].vectors, train.labels).items()}
    table = []
    for recall in RECALLS:
        dropped = idness.calibrate(held, recall).reached(id_ness)
        table.append(
            {
                "id_recall": recall,
                "dropped_showing_id": float(dropped[shows].mean()),
                "dropped_others": float(dropped[~shows].mean()),
                "contamination_after": float(shows[~dropped].mean()) if (~dropped).any() else None,
                "rows_left": int((~dropped).sum()),
            }
        )
    kept = ~idness.calibrate(held, REPORTED_RECALL).reached(id_ness)
    found = contamination.estimate(id_ness, held, id_ness[kept])
    return {
        "embedder": spec.split(":")[0],
        "auroc": {name: float(roc_auc_score(shows, score)) for name, score in scores.items()},
        "recalls": table,
        "contamination": {"corpus": float(shows.mean()), "kept": float(shows[kept].mean())},
        "estimated": {name: share.to_dict() for name, share in found.items()} if found else None,
        "seconds": seconds,
    }


def main() -> None:
    """Parse, measure, print tables and (``--json``) write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="tiny-imagenet:corpus")
    parser.add_argument("--id", default="cifar10")
    parser.add_argument("--embedder", action="append")
    parser.add_argument("--limit", type=int, help="rows of the corpus and of ID train; half as many held-out ones")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    train_spec, test_spec = datasets.id_specs(options.id)
    if test_spec is None:
        raise SystemExit(f"--id {options.id}: needs a test split")
    corpus, train, test = load((options.corpus, train_spec, test_spec), options.limit)
    packaged = manifests.find("exclusions", options.id)
    if packaged is None:
        raise SystemExit(f"--id {options.id}: no exclusions tell which labels show its classes")
    showing = semantics.match_labels(corpus.class_names, semantics.load_exclusions(packaged))
    shows = np.isin(corpus.labels, list(showing))

    print(f"{options.corpus}: {len(shows):,} rows, {shows.mean():.2%} with a label that shows a class of {options.id}")
    results = []
    for spec in options.embedder or ["thumbnail"]:
        result = measure(spec, corpus, train, test, shows)
        results.append(result)
        print(f"\n{result['embedder']} ({result['seconds']:.0f} s)\nAUROC")
        for name, value in result["auroc"].items():
            print(f"{value:7.4f}  {name}")
        print("id-recall  dropped of ID-class rows  dropped of others  contamination after  rows left")
        for row in result["recalls"]:
            print(
                f"{row['id_recall']:9.2f}  {row['dropped_showing_id']:24.2%}  {row['dropped_others']:17.2%}"
                f"  {row['contamination_after'] or 0:19.2%}  {row['rows_left']:9,}"
            )
        for name, truth in result["contamination"].items():
            share = result["estimated"] and result["estimated"][name]
            words = f"{share['point']:.1%} ({share['low']:.1%} to {share['high']:.1%})" if share else "none"
            print(f"contamination of the {name} rows at recall {REPORTED_RECALL}: {truth:.2%}, estimated {words}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
