"""The page of all results, docs/results.md: made of the documents in results/reproduce, no figure typed by hand."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from srood.files import write_text
from train.reproduce import plots, tables
from train.reproduce.documents import CellResult, Document, file_name, read_document
from train.reproduce.experiments import Experiment, load, names

SHOWN = {  # profiles on the page
    "gpu": "the paper's recipe in full",
    "cpu": "in little, on two cores",
}
INTRODUCTION = """\
# The paper's tables, run again

This page is made from the files in {results} by

    srood reproduce --page docs/results.md

and no figure on it was typed. What has not been run is said to be so, with the command that runs it.

    srood reproduce table1 --profile cpu
    srood reproduce curation --profile gpu --only filtered --only random
    srood reproduce table1 --profile cpu --dry-run

- An experiment is a file of [manifests/experiments](../manifests/experiments): networks, ID sets, methods with their
  settings, OOD sets, seeds, and the published values. Profile `gpu` is the paper's recipe in full, with three seeds and
  under both protocols ([training.md](training.md) has what they differ in); `cpu` is a ResNet-20 on CIFAR-10, tuned for
  a stated number of steps; `smoke` runs on digits, and its figures mean nothing.
- A cell is a method on a network, ID set and seed. Its training is a run folder under `runs/reproduce`, named by a
  fingerprint of its settings, images and outliers. What is finished is found again, also by other tables; of runs that
  are on another machine, the figures in the JSON files are. What was interrupted goes on with the same command.
  `--dry-run` lists the cells with the commands that make each again, and so do the JSON files, with fingerprints of all
  images, versions, hardware and seconds.
- Every table has a control: cross entropy alone, from the same weights, with the same seed and number of steps; for
  curation, outliers drawn at random. The last column of figures is the difference between runs of the same seed.
- Intervals are Student's t at 95 %, over seeds. With three seeds they are wide: t is 4.3. Where tuning starts from one
  given classifier, as under `cpu`, they are over tuning alone. They say nothing of other OOD images.
- FPR95 is that of the paper's text: the share of OOD images accepted where 95 % of ID images are
  ([metrics.md](metrics.md)). AUPR depends on the ratio of ID to OOD images, which is the paper's under its protocol
  only.
- A set that cannot be had is missing, and the mean says of how many sets it is.

OOD sets that the experiments make: `photographs` are crops of pictures that come with scikit-image and scikit-learn,
`blobs` smoothed noise (after Hendrycks et al., ICLR 2019), `tiny-imagenet-held-out` those of 2,000 rows of Tiny
ImageNet whose label shows no ID class; no outlier set, curated or not, holds any of the 2,000.
"""


def write_page(page: Path, results: Path) -> list[Path]:
    """Write the page, and its plots into a folder beside it that is named after it.

    Returns:
        what was written.

    Raises:
        InputError: a document cannot be read.
    """
    folder = page.with_suffix("")
    drawn = {key: plots.draw(document, folder) for key, document in documents_in(results).items()}
    write_text(
        page,
        text_of(
            results, page.parent, {key: [path.name for path in paths] for key, paths in drawn.items()}, folder.name
        ),
    )
    wanted = {path for paths in drawn.values() for path in paths}
    for path in folder.glob("*.png") if folder.is_dir() else ():
        if path not in wanted:
            path.unlink()  # of results that are no more
    return [page, *sorted(wanted)]


def documents_in(results: Path) -> dict[tuple[str, str], Document]:
    """The documents of whole experiments, by experiment and profile."""
    found = {}
    for name in names():
        for profile in SHOWN:
            path = results / file_name(name, profile)
            if path.exists():
                found[name, profile] = read_document(path)
    return found


def text_of(results: Path, beside: Path, drawn: dict[tuple[str, str], list[str]], folder: str) -> str:
    """The page as Markdown.

    Args:
        results: the folder of the documents
        beside: the folder of the page, from which links go
        drawn: names of plots, by experiment and profile, in `folder`
    """
    found = documents_in(results)
    link = Path(os.path.relpath(results, beside)).as_posix()
    experiments = {name: load(name, next(iter(SHOWN))) for name in names()}
    parts = [
        INTRODUCTION.format(results=f"[results/reproduce]({link})" if results.is_dir() else "results/reproduce"),
        contents(experiments, found),
    ]
    for name, experiment in experiments.items():
        parts.append(f"## {experiment.title}\n\n{experiment.about.strip()}\n")
        for profile, what in SHOWN.items():
            command = f"    srood reproduce {name} --profile {profile}\n"
            document = found.get((name, profile))
            parts.append(f"### {name}, {profile}: {what}\n")
            if document is None:
                parts.append(f"Not run.\n\n{command}")
                continue
            images = [f"![{document.experiment.title}]({folder}/{one})\n" for one in drawn.get((name, profile), [])]
            file = f"{link}/{file_name(name, profile)}"
            parts += [command, recipe(document.experiment), tables.markdown(document), *images, made_on(document, file)]
    return "\n".join(parts)


def contents(experiments: dict[str, Experiment], found: dict[tuple[str, str], Document]) -> str:
    """A table of the experiments, with how many cells of each are done."""
    lines = ["| experiment | |" + "".join(f" {profile} |" for profile in SHOWN), "|---|---|" + "---:|" * len(SHOWN)]
    for name, experiment in experiments.items():
        title = experiment.title
        link = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_").replace(" ", "-")
        states = []
        for profile in SHOWN:
            cells = found[name, profile].cells if (name, profile) in found else ()
            done = sum(cell.status == "done" for cell in cells)
            states.append(f"{done} of {len(cells)} cells" if done else "not run")
        lines.append(f"| {name} | [{title}](#{link}) |" + "".join(f" {state} |" for state in states))
    return "\n".join(lines) + "\n"


def recipe(experiment: Experiment) -> str:
    """What the cells of an experiment are, in one paragraph."""
    steps = {**experiment.tune}
    tuning = f"{steps['max_steps']:,} steps" if "max_steps" in steps else f"{steps.get('epochs', 10)} epochs"
    start = "the weights at hand, where there are such, else pretrained" if experiment.checkpoint else "pretrained"
    what = f"{', '.join(experiment.networks)} on {', '.join(experiment.id_sets)}"
    return f"{what}; {start}, then tuned for {tuning}; seeds {', '.join(map(str, experiment.seeds))}.\n"


def made_on(document: Document, file: str) -> str:
    """Machines, versions and seconds of what is done."""
    done = [cell for cell in document.cells if cell.status == "done"]
    if not done:
        return f"Nothing of it is done. [Details]({file}).\n"
    counts = Counter(cell.environment for cell in done)
    lines = []
    for key, count in counts.most_common():
        on = document.environments[key]
        where = on["gpu"] or f"{on['cpu']}, {on['cores']} cores"
        lines.append(f"{count} {'cell' if count == 1 else 'cells'} on {where}, torch {on['versions']['torch']}")
    hours = sum(_once(done).values()) / 3600
    return f"{'; '.join(lines)}; {hours:.1f} hours. [Commands, fingerprints and figures of each seed]({file}).\n"


def _once(cells: Sequence[CellResult]) -> dict[tuple[str, str], float]:
    """Seconds by what they were spent on: cells share evaluations and trainings."""
    found = {}
    for cell in cells:
        # what a pretraining is has no name here; those of several seeds last differently
        of = {"evaluation": cell.fingerprint, "tuning": cell.weights}
        for name, seconds in cell.seconds.items():
            found[name, of.get(name, f"{cell.id_set} {cell.network} {seconds}")] = seconds
    return found
