"""Near-duplicates in a folder of JPEG files: this project, fastdup and imagededup on the same files, in one run.

    python benchmarks/dedup.py

The files are images of a named set and planted copies of some of them (curate.copies.COPIES), so that what is to be
found is known. In each round every contender goes from the files to its pairs in a process of its own, one after the
other, on --cores processors. `curate audit` is this project's search for pairs; `curate build` makes an outlier set of
the same files, which includes indexing protected images, comparing with them, and writing. Seconds count from the
start of the process to its end. Memory is the resident peak of its largest process.

fastdup and imagededup are installed by pip, each in an environment of its own below --environments, the first time.
One that fails or takes longer than --timeout is named with the reason, and left out from then on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from peers.contenders import BUILD, CONTENDERS, Failed, Scores, build, find
from peers.environments import FOLDER, REQUIREMENTS
from planted_folder import Planted, write_folder
from spread import spread


def score(found: Scores, planted: Planted, cuts: dict[str, float]) -> dict[str, dict[str, Any]]:
    """By cut: the share of planted pairs named, by kind and in all, and how many pairs named were not planted."""
    truth = planted.every()
    rows = {}
    for cut, least in cuts.items():
        named = {names for names, value in found.items() if value >= least}
        rows[cut] = {
            "recall": {kind: len(named & pairs) / len(pairs) for kind, pairs in planted.pairs.items()},
            "recall_all": len(named & truth) / len(truth),
            "planted_share": len(named & truth) / len(named) if named else None,
            "others": len(named - truth),
            "others_per_1000_images": 1000 * len(named - truth) / planted.images,
        }
    return rows


def score_build(kept: set[str], planted: Planted) -> dict[str, dict[str, Any]]:
    """The same of a set: a planted pair was found where the set does not hold both. Other pairs are not known."""
    parted = {kind: sum(not {*names} <= kept for names in pairs) for kind, pairs in planted.pairs.items()}
    recall = {kind: count / len(planted.pairs[kind]) for kind, count in parted.items()}
    total = sum(parted.values()) / len(planted.every())
    unknown = {"planted_share": None, "others_per_1000_images": None}
    return {"set without both": {"recall": recall, "recall_all": total, **unknown}}


def run_rounds(options: argparse.Namespace, folder: Path, planted: Planted, results: Path) -> dict[str, dict[str, Any]]:
    """By contender: seconds and peak bytes of each round, and what was found in the last; or why it failed."""
    figures: dict[str, dict[str, Any]] = {name: {"seconds": [], "peak_bytes": []} for name in options.only}
    others: dict[str, set] = {}
    for number in range(options.rounds):
        for name, row in figures.items():
            if "failed" in row:
                continue
            result = results / f"{name}-{number}".replace(" ", "-")
            print(f"round {number + 1}: {name}", file=sys.stderr)
            try:
                if name == BUILD:
                    row["found"] = score_build(build(folder, result, *limits(options), build_options(options)), planted)
                else:
                    found = find(name, folder, result, *limits(options), options.environments)
                    row["found"] = score(found, planted, CONTENDERS[name].cuts)
                    least = next(iter(CONTENDERS[name].cuts.values()))
                    others[name] = {names for names, value in found.items() if value >= least} - planted.every()
            except Failed as reason:
                if name not in REQUIREMENTS:
                    raise SystemExit(f"{name}: {reason}") from None
                row["failed"] = str(reason)
                continue
            measured = json.loads((result / "figures.json").read_text())
            row["seconds"].append(measured["seconds"])
            row["peak_bytes"].append(measured["peak_bytes"])
    for name, pairs in others.items():  # two methods that name the same pair: hardly by chance
        elsewhere = set().union(*(more for other, more in others.items() if other != name))
        figures[name]["others_also_named_elsewhere"] = len(pairs & elsewhere)
    return figures


def limits(options: argparse.Namespace) -> tuple[int, float]:
    """Processors and seconds for one contender."""
    return options.cores, options.timeout


def build_options(options: argparse.Namespace) -> list[str]:
    """Of `curate build`: every row that is left is written."""
    given = ["--size", str(options.images), "--id", options.id, "--embedder", options.embedder, "--json"]
    return given + [word for spec in options.protect or ["cifar100:test"] for word in ("--protect", spec)]


def ratios(figures: dict[str, dict[str, Any]]) -> dict[str, list[float]]:
    """How many times as fast as each peer this project is, a figure a round."""
    found = {}
    for peer in REQUIREMENTS:
        theirs = figures.get(peer, {"failed": ""})
        for name, row in figures.items():
            if "failed" not in theirs and name not in REQUIREMENTS:
                times = [a / b for a, b in zip(theirs["seconds"], row["seconds"], strict=True)]
                found[f"{name} / {peer}"] = times
    return found


def peers_ahead(figures: dict[str, dict[str, Any]]) -> list[str]:
    """Where a peer does better than this project, a line each; findings by each one's own settings."""
    lines = []
    for peer, name in ((peer, name) for peer in REQUIREMENTS for name in figures if name not in REQUIREMENTS):
        theirs, ours = figures.get(peer, {"failed": ""}), figures[name]
        if "failed" in theirs:
            continue
        for measure, words in (("seconds", "takes less time"), ("peak_bytes", "takes less memory")):
            share = median(theirs[measure]) / median(ours[measure])
            if share < 1:
                lines.append(f"{peer} {words} than {name}: {share:.2f} of it")
        their_finds, our_finds = (next(iter(row["found"].values())) for row in (theirs, ours))
        for kind, share in their_finds["recall"].items():
            mine = our_finds["recall"][kind]
            if share > mine:
                lines.append(f"{peer} finds more than {name} of {kind}: {share:.1%}, not {mine:.1%}")
        rate, mine = (found["others_per_1000_images"] for found in (their_finds, our_finds))
        if mine is not None and rate < mine:
            lines.append(f"{peer} names fewer other pairs than {name}: {rate:.2f} in 1,000 images, not {mine:.2f}")
    return lines


def print_figures(figures: dict[str, dict[str, Any]], planted: Planted) -> None:
    """Ratios, time and memory, findings, where a peer is ahead."""
    for name, values in ratios(figures).items():
        print(f"{spread(values, '.2f'):>24}  {name}, speed")
    print("\n| contender | images/s | seconds | peak memory, MB |\n|---|---|---|---|")
    for name, row in figures.items():
        if "failed" in row:
            print(f"| {name} | failed: {row['failed']} | | |")
            continue
        rates = spread([planted.images / seconds for seconds in row["seconds"]], ",.0f")
        memory = spread([peak / 1e6 for peak in row["peak_bytes"]], ",.0f")
        print(f"| {name} | {rates} | {spread(row['seconds'], '.1f')} | {memory} |")
    kinds = list(planted.pairs)
    print("\n| copies found | " + " | ".join(kinds) + " | all | planted of pairs named | other pairs in 1,000 images |")
    print("|---|" + "---|" * (len(kinds) + 3))
    for name, row in figures.items():
        for cut, found in row.get("found", {}).items():
            shares = (*found["recall"].values(), found["recall_all"], found["planted_share"])
            cells = ["" if share is None else f"{share:.1%}" for share in shares]
            others = found["others_per_1000_images"]
            print(f"| {name}, {cut} | {' | '.join(cells)} | {'' if others is None else f'{others:.2f}'} |")
    print()
    for name, row in figures.items():
        if "others_also_named_elsewhere" in row:
            count = next(iter(row["found"].values()))["others"]
            print(f"of {count:,} other pairs of {name}, another contender names {row['others_also_named_elsewhere']:,}")
    print("\nWhere a peer is ahead:")
    print("\n".join(f"- {line}" for line in peers_ahead(figures)) or "- nowhere in this run")


def main() -> None:
    """Write the files, run the rounds, print, and (``--json``) write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000, help="JPEG files, copies included")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=[BUILD, *CONTENDERS], default=[BUILD, *CONTENDERS])
    parser.add_argument("--source", default="tiny-imagenet:corpus")
    parser.add_argument("--id", default="cifar10", help="of curate build")
    parser.add_argument("--protect", action="append", help="of curate build, besides the ID set; default cifar100:test")
    parser.add_argument("--embedder", default="thumbnail", help="of curate build")
    parser.add_argument("--environments", type=Path, default=FOLDER, help="the peers are installed below it")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one contender in one round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # inherited by every contender
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "images")
        planted = write_folder(folder, options.source, options.images, options.seed)
        figures = run_rounds(options, folder, planted, Path(temporary))
    print_figures(figures, planted)
    if options.json:
        copies = {kind: len(pairs) for kind, pairs in planted.pairs.items()}
        facts = {"images": planted.images, "copies": copies, "cores": options.cores, "requirements": REQUIREMENTS}
        document = {"ratios": ratios(figures), "peers_ahead": peers_ahead(figures), **facts, "contenders": figures}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
