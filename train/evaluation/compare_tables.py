"""A comparison as tables, CSV and JSON."""

from __future__ import annotations

from typing import Any

from train.evaluation.compare import Comparison, Row
from train.evaluation.eval_tables import heading, mark_best
from train.evaluation.measures import metric_names
from train.evaluation.tables import MISSING, Cell, Table, per_cent, to_csv

NOT_EVALUATED = "–"


def long_table(comparison: Comparison) -> Table:
    """For a terminal: for each OOD set, and the mean, a row for each run and score."""
    metrics = _metrics(comparison)
    labels = _labels(comparison)
    rows: list[tuple[Cell, ...]] = []
    rules = []
    for column in [*comparison.columns, ""] if len(comparison.columns) > 1 else comparison.columns:
        figures = [_figures(row, column) for row in comparison.rows]
        accuracy = mark_best(*_accuracies(comparison), "accuracy")
        cells = {metric: _marked(figures, metric) for metric in metrics}
        for number, (row, label) in enumerate(zip(comparison.rows, labels, strict=True)):
            name = (column or mean_name(comparison)) if number == 0 else ""
            words = [MISSING if column in row.missing else NOT_EVALUATED, *[""] * (len(metrics) - 1)]
            shown = [cells[metric][number] for metric in metrics] if figures[number][0] else words
            rows.append((name, *label, accuracy[number], *shown))
        rules.append(len(rows) - 1)
    columns = ("OOD set", *_label_names(comparison), "ID acc.", *map(heading, metrics))
    title = f"per cent{_of_score(comparison)}; ID: {comparison.id['spec']}"
    return Table(columns, tuple(rows), 1 + len(labels[0]), frozenset(rules), title)


def wide_table(comparison: Comparison) -> Table:
    """For a page: a row for each run and score, a column for each OOD set with FPR and AUROC, as papers print it."""
    pair = (comparison.convention["metric"], "auroc")
    columns = [*comparison.columns, *([""] if len(comparison.columns) > 1 else [])]
    accuracy = mark_best(*_accuracies(comparison), "accuracy")
    cells: dict[str, list[Cell]] = {}
    for column in columns:
        figures = [_figures(row, column) for row in comparison.rows]
        by_metric = [_marked(figures, metric) for metric in pair]
        cells[column] = [
            tuple(part for of_metric in by_metric for part in of_metric[number])  # type: ignore[misc]
            if figures[number][0]
            else (MISSING if column in row.missing else NOT_EVALUATED)
            for number, row in enumerate(comparison.rows)
        ]
    rows = tuple(
        (*label, accuracy[number], *(cells[column][number] for column in columns))
        for number, label in enumerate(_labels(comparison))
    )
    names = [column or mean_name(comparison) for column in columns]
    title = f"{' / '.join(map(heading, pair))} in per cent{_of_score(comparison)}; ID: {comparison.id['spec']}"
    return Table((*_label_names(comparison), "ID accuracy", *names), rows, len(_labels(comparison)[0]), title=title)


def compact_table(comparison: Comparison) -> Table:
    """A row for each run and score with all metrics of the mean over the OOD sets."""
    metrics = metric_names(comparison.convention["tpr"])
    figures = [_figures(row, "") for row in comparison.rows]
    accuracy = mark_best(*_accuracies(comparison), "accuracy")
    cells = {metric: _marked(figures, metric) for metric in metrics}
    rows = tuple(
        (
            *label,
            accuracy[number],
            *(cells[metric][number] if figures[number][0] else NOT_EVALUATED for metric in metrics),
        )
        for number, label in enumerate(_labels(comparison))
    )
    title = f"{mean_name(comparison)}, in per cent{_of_score(comparison)}; ID: {comparison.id['spec']}"
    columns = (*_label_names(comparison), "ID acc.", *map(heading, metrics))
    return Table(columns, rows, len(_labels(comparison)[0]), title=title)


def mean_name(comparison: Comparison) -> str:
    """``mean``, or of how many of the sets it is where some run lacks one."""
    common, all_sets = len(comparison.common), len(comparison.columns)
    return "mean" if common == all_sets else f"mean of {common} of {all_sets} sets"


def notes(comparison: Comparison) -> tuple[str, ...]:
    """What a reader must know beside the tables."""
    convention = comparison.convention
    metric = convention["metric"]
    found = [
        f"ID accuracy on {comparison.id['images']:,} images of {comparison.id['spec']}. {heading(metric)} "
        f"{convention['name']}: {convention[metric]}."
    ]
    if len(comparison.common) < len(comparison.columns):
        found.append(f"The mean is over the sets that all have: {', '.join(comparison.common) or 'none'}.")
    missing = {column: row for row in reversed(comparison.rows) for column in row.missing}
    for column, row in missing.items():
        found.append(f"{MISSING}: {column}, in {row.run.name} because: {row.missing[column]}")
    draws = comparison.draws
    if draws:
        found.append(f"{draws['number']} draws of {draws['size']:,} images of each OOD set, seed {draws['seed']}.")
    kinds = {(d["over"], d["number"]): d["kind"] for row in comparison.rows if (d := row.run.result["deviation"])}
    found += [f"±: {kind} over {number} {over}." for (over, number), kind in kinds.items()]
    return tuple(found)


def compare_csv(comparison: Comparison) -> str:
    """A row per run, score and OOD set, then the means; shares in [0, 1]."""
    convention = comparison.convention
    metrics = metric_names(convention["tpr"])
    header = ["run", "score", "ood", *metrics, *(f"{metric}_std" for metric in metrics)]
    header += ["id_accuracy", "id_accuracy_std", "convention", "definition", "sets", MISSING]
    rows: list[list[object]] = []
    for row in comparison.rows:
        for column in [*comparison.columns, ""]:
            values, std = _figures(row, column)
            figures = [values.get(metric, "") for metric in metrics]
            figures += [(std or {}).get(metric, "") for metric in metrics]
            of_id = [row.accuracy, "" if row.accuracy_std is None else row.accuracy_std]
            sets = "" if column else f"{len(comparison.common)} of {len(comparison.columns)}"
            reason = row.missing.get(column, "") if column in row.missing or values else "not evaluated"
            about = [convention["name"], convention[convention["metric"]]]
            rows.append([row.run.name, row.score, column or "mean", *figures, *of_id, *about, sets, reason])
    return to_csv(header, rows)


def compare_values(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain values, for JSON."""
    return {
        "convention": comparison.convention,
        "draws": comparison.draws,
        "id": comparison.id["spec"],
        "sets": list(comparison.columns),
        "mean_over": list(comparison.common),
        "rows": [
            {
                "run": row.run.name,
                "folder": str(row.run.folder),
                "score": row.score,
                "id_accuracy": row.accuracy,
                "id_accuracy_std": row.accuracy_std,
                "ood": row.figures,
                "std": row.std,
                "missing": row.missing,
                "mean": row.mean,
                "mean_std": row.mean_std,
            }
            for row in comparison.rows
        ],
    }


def row_names(comparison: Comparison) -> list[str]:
    """One name a row: that of the run, of the score, or both, whichever tells rows apart."""
    return [": ".join(label) for label in _labels(comparison)]


def _labels(comparison: Comparison) -> list[tuple[str, ...]]:
    if len({row.score for row in comparison.rows}) == 1:
        return [(row.run.name,) for row in comparison.rows]
    return [(row.run.name, row.score) for row in comparison.rows]


def _of_score(comparison: Comparison) -> str:
    scores = {row.score for row in comparison.rows}
    return f", score: {next(iter(scores))}" if len(scores) == 1 else ""


def _label_names(comparison: Comparison) -> tuple[str, ...]:
    return ("run", "score")[: len(_labels(comparison)[0])]


def _metrics(comparison: Comparison) -> tuple[str, ...]:
    names = metric_names(comparison.convention["tpr"])
    return names[:3] if any(row.std or row.mean_std for row in comparison.rows) else names


def _figures(row: Row, column: str) -> tuple[dict[str, float], dict[str, float] | None]:
    """Metrics and deviations of a row in a column, ``""`` for the mean; both empty where there are none."""
    if not column:
        return row.mean, row.mean_std
    return row.figures.get(column, {}), row.std.get(column)


def _accuracies(comparison: Comparison) -> tuple[list[str], list[float]]:
    rows = comparison.rows
    return [per_cent(row.accuracy, row.accuracy_std) for row in rows], [row.accuracy for row in rows]


def _marked(figures: list[tuple[dict[str, float], dict[str, float] | None]], metric: str) -> list[Cell]:
    """Cells of one metric in a column of rows; rows without figures are passed over."""
    there = [number for number, (values, _) in enumerate(figures) if values]
    texts = [per_cent(figures[n][0][metric], (figures[n][1] or {}).get(metric)) for n in there]
    marked = dict(zip(there, mark_best(texts, [figures[n][0][metric] for n in there], metric), strict=True))
    return [marked.get(number, NOT_EVALUATED) for number in range(len(figures))]
