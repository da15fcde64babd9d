"""The tables of an experiment: the published value, ours over seeds, their difference, and that to the control."""

from __future__ import annotations

from train.evaluation.tables import Table, to_markdown, with_notes
from train.reproduce.documents import Document
from train.reproduce.experiments import MEAN, Metric
from train.reproduce.figures import Row, against, control_of, had, over_seeds, places, published, rows_of
from train.reproduce.statistics import Estimate

NONE = "–"
HEADINGS: dict[str, str] = {"fpr95": "FPR95", "auroc": "AUROC", "aupr_in": "AUPR", "id_error": "ID error"}
PROTOCOLS = {
    "default": "every image of each OOD set",
    "paper": "the switches of the authors' code; ten draws of a fifth of the ID test set's number",
}


def tables(document: Document) -> list[Table]:
    """A table for each protocol and metric; figures in per cent."""
    experiment = document.experiment
    every = rows_of(document)
    return [
        _table(document, [row for row in every if row.protocol == protocol], protocol, metric)
        for protocol in experiment.protocols
        for metric in experiment.metrics
    ]


def notes(document: Document) -> list[str]:
    """Sentences for below the tables: what the figures are, and why some are missing."""
    experiment = document.experiment
    convention = f"FPR95 {experiment.convention} under the default protocol, that of the code under the paper's"
    lines = [f"{convention}; AUPR with ID positive. All in per cent."]
    lines.append(
        "Ours: mean over seeds ± half of Student's t interval at 95 %. Published less ours is not taken where ours is "
        "of fewer OOD sets."
    )
    if experiment.control is not None:
        lines.append(
            f"Less {experiment.methods[experiment.control].title}: mean difference between runs of the same seed and "
            "number of steps ± half of its t interval."
        )
    done = [cell for cell in document.cells if cell.status == "done"]
    if done:
        sizes = {name: entry["images"] for cell in done for name, entry in cell.data["ood"].items()}
        lines.append("Images: " + ", ".join(f"{name} {count:,}" for name, count in sizes.items()) + ".")
    counts = {word: sum(cell.status == word for cell in document.cells) for word in ("not run", "missing", "failed")}
    said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    if said:
        lines.append(f"Of {len(document.cells)} cells: {len(done)} done, {said}.")
    reasons: dict[str, str] = {}
    for cell in document.cells:
        for name, reason in cell.missing.items():
            reasons.setdefault(f"OOD set {name}", reason)
        if cell.reason:
            reasons.setdefault(f"{experiment.methods[cell.method].title}, {cell.status}", cell.reason)
    return lines + [f"{what}: {reason}" for what, reason in reasons.items()]


def markdown(document: Document) -> str:
    """All tables with their notes."""
    found = tables(document)
    found[-1] = with_notes(found[-1], notes(document))
    return "\n".join(map(to_markdown, found))


def _table(document: Document, rows: list[Row], protocol: str, metric: Metric) -> Table:
    experiment = document.experiment
    where = {MEAN: places(document)[MEAN]} if metric == "id_error" else places(document)
    several = {
        "ID set": len(experiment.id_sets) > 1,
        "network": len(experiment.networks) > 1,
        "OOD sets": len(where) > 1,
    }
    lines, ends = [], []
    printed = any(published(row, document, place, metric) is not None for row in rows for place in where)
    compared = any(control_of(row, rows, document) is not None for row in rows) and len(experiment.methods) > 1
    for row in rows:
        for number, (place, sets) in enumerate(where.items()):
            first = number == 0
            labels = {
                "ID set": row.id_set if first else "",
                "network": row.network if first else "",
                "method": experiment.methods[row.method].title if first else "",
                "OOD sets": _named(row, place, sets),
            }
            ours = over_seeds(row, metric, sets)
            paper = published(row, document, place, metric)
            whole = metric == "id_error" or len(set(had(row, sets))) == 1
            difference = f"{ours.mean - paper:+.2f}" if ours and paper is not None and whole else NONE
            cells = [NONE if paper is None else f"{paper:.2f}"] if printed else []
            cells += [row.state if ours is None and row.state != "done" else _shown(ours)]
            cells += [difference] if printed else []
            cells += [NONE if ours is None or ours.count < 2 else f"{ours.low:.2f} to {ours.high:.2f}"]
            if compared:
                cells += [_shown(against(row, control_of(row, rows, document), metric, sets), "+")]
            cells += [f"{len(row.done)} of {len(row.cells)}"]
            words = [text for name, text in labels.items() if several.get(name, True)]
            lines.append((*words, *cells))
        if len(where) > 1:
            ends.append(len(lines) - 1)
    columns = [name for name in ("ID set", "network", "method", "OOD sets") if several.get(name, True)]
    labelled = len(columns)
    columns += ["published"] if printed else []
    columns += ["ours"] + (["ours - published"] if printed else []) + ["smallest to largest"]
    columns += [f"ours - {experiment.methods[experiment.control].title}"] if compared and experiment.control else []
    columns += ["seeds"]
    title = f"{HEADINGS[metric]}, {protocol} protocol"
    if metric != "id_error" and len(where) == 1:
        title += f", {_mean_name(rows, where[MEAN])}"
    return Table(tuple(columns), tuple(lines), labelled, frozenset(ends), title)


def _named(row: Row, place: str, sets: tuple[str, ...]) -> str:
    if len(sets) == 1:
        return place
    found, wanted = had(row, sets)
    missing = f"{found} of " if row.done and found < wanted else ""
    return f"{place} of {missing}{wanted}"


def _mean_name(rows: list[Row], sets: tuple[str, ...]) -> str:
    found = {had(row, sets)[0] for row in rows if row.done} or {len(sets)}
    of = f"{min(found)} of " if min(found) < len(sets) else ""
    return f"mean over {of}{len(sets)} OOD sets"


def _shown(estimate: Estimate | None, sign: str = "") -> str:
    if estimate is None:
        return NONE
    half = "" if estimate.half is None else f" ± {estimate.half:.2f}"
    return f"{estimate.mean:{sign}.2f}{half}"
