"""How good the curation is: copies found by kind, false drops, ID classes found, contamination, coverage.

    python benchmarks/curation_quality.py --embedder thumbnail --embedder checkpoint:resnet20-cifar10.safetensors \
        --peer imagededup --json results/curation_quality.json

Coverage by sampling strategy is measured on the embeddings of the last embedder.

`--peer imagededup` measures imagededup's hashes on the same planted copies; it is installed in an environment of its
own (.venv-peers), the first time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import id_filter
import leaks
import numpy as np
import sampling
from peers.environments import python_of

from curate import semantics
from srood import datasets, manifests


def peer(train: np.ndarray, test: np.ndarray, corpus: np.ndarray, count: int, seed: int) -> dict[str, Any]:
    """imagededup's figures by hash and distance, on copies drawn as `leaks.measure` draws them."""
    python = python_of("imagededup")
    rng = np.random.default_rng(seed)
    rng.permutation(len(train))
    chosen = rng.permutation(len(test))[:count]
    arrays = {f"copies:{kind}": leaks.planted(test[chosen], kind, rng) for kind in leaks.KINDS}
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder, "images.npz"), Path(folder, "result.json")
        everything = np.concatenate([train, test])
        np.savez(given, protected=everything, chosen=len(train) + chosen, corpus=corpus, **arrays)
        script = Path(__file__).parent / "peers" / "imagededup_copies.py"
        subprocess.run([python, script, given, result], check=True)
        return dict(json.loads(result.read_text()))


def print_copies(rows: dict[str, dict[str, Any]]) -> None:
    """A Markdown table: a row per method, the kinds of copy across."""
    kinds = list(leaks.KINDS)
    print("| method | " + " | ".join(kinds) + " | unrelated rows dropped |")
    print("|---|" + "---|" * (len(kinds) + 1))
    for name, row in rows.items():
        cells = [f"{row['found'][kind]:.1%}" for kind in kinds]
        print(f"| {name} | " + " | ".join(cells) + f" | {row['false_drops']:.2%} |")


def main() -> None:
    """Parse, measure, print the tables and (``--json``) write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--id", default="cifar10")
    parser.add_argument("--corpus", default="tiny-imagenet:corpus")
    parser.add_argument("--embedder", action="append")
    parser.add_argument("--copies", type=int, default=1000, help="copies of each kind")
    parser.add_argument("--limit", type=int, help="use only so many rows of each set (for a quick look)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer", choices=["imagededup"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    train_spec, test_spec = datasets.id_specs(options.id)
    packaged = manifests.find("exclusions", options.id)
    if test_spec is None or packaged is None:
        sys.exit(f"--id {options.id}: needs a test split, and exclusions that tell which labels show its classes")
    corpus, train, test = id_filter.load((options.corpus, train_spec, test_spec), options.limit)

    print(f"Copies of {test_spec} and rows of {options.corpus}, searched among {train_spec} and {test_spec}\n")
    arrays = (train.images, test.images, corpus.images, options.copies, options.seed)
    ours = leaks.measure(*arrays)
    copies = {"curate": {"found": ours["found"], "false_drops": ours["corpus_flagged"] / ours["corpus_rows"]}}
    if options.peer:
        copies |= {f"{options.peer} {name}": row for name, row in peer(*arrays).items()}
    print_copies(copies)

    showing = semantics.match_labels(corpus.class_names, semantics.load_exclusions(packaged))
    shows = np.isin(corpus.labels, list(showing))
    print(f"\nRows that show an ID class, judged by hidden labels ({shows.mean():.2%} of {options.corpus})\n")
    print("| embedder | AUROC of ID-ness | --id-recall | contamination after | other rows dropped |")
    print("|---|---|---|---|---|")
    embedders = options.embedder or ["thumbnail"]
    classes = [id_filter.measure(spec, corpus, train, test, shows) for spec in embedders]
    for result in classes:
        for row in result["recalls"]:
            if row["id_recall"] in (0.5, 0.7, 0.9):
                after = "-" if row["contamination_after"] is None else f"{row['contamination_after']:.2%}"
                print(
                    f"| {result['embedder']} | {result['auroc']['ID-ness']:.3f} | {row['id_recall']} | {after} "
                    f"| {row['dropped_others']:.2%} |"
                )

    columns = sampling.columns_of(corpus, train, embedders[-1])
    rows = sampling.long_tail(corpus.labels)
    size = min(500, len(rows) // 4)
    covered = sampling.compare(columns, shows, rows, size)
    total = len(np.unique(corpus.labels[rows]))
    print(f"\nCoverage of {size} rows out of {len(rows):,} with a long tail of {total} labels; mean of three seeds\n")
    print("| --sample | labels drawn | clusters of 256 | shows an ID class |")
    print("|---|---|---|---|")
    for row in covered:
        print(f"| {row['strategy']} | {row['labels']:.0f} | {row['clusters']:.0f} | {row['id_share']:.1%} |")
    if options.json:
        options.json.write_text(
            json.dumps({"copies": copies, "id_classes": classes, "coverage": covered}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
