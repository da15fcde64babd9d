"""An evaluation as tables for people and as CSV."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from train.evaluation.measures import metric_names
from train.evaluation.tables import MISSING, Cell, Table, per_cent, to_csv

HEADINGS = {"auroc": "AUROC", "aupr_in": "AUPR-in", "aupr_out": "AUPR-out", "detection_error": "error"}
FEW = 4  # scores up to which each OOD set has rows of its own
NO_FIGURE = "–"  # of a set that is missing, where there are many scores
GAP = 2  # between columns of a printed table


def heading(metric: str) -> str:
    """How tables call a metric."""
    return HEADINGS.get(metric, metric.upper())


def eval_tables(result: Mapping[str, Any], width: int | None = None) -> list[Table]:
    """The result as tables, in per cent.

    Up to four scores have a row for each OOD set with all metrics; more than that make one table of FPR and one of
    AUROC, a row for each score, best AUROC first, and a column for each set.

    Args:
        result: what `train.evaluation.evaluate.evaluate` returns
        width: characters to fit the tables of many scores into, by dividing their columns; None for any width
    """
    title = f"{result['weights']['file']} ({result['model']})"
    if len(result["mean"]) <= FEW:
        return [_by_set(result, title)]
    metric = result["convention"]["metric"]
    wide = [_by_score(result, m, f"{title}: {heading(m)}, per cent") for m in ("auroc", metric)]
    return [part for table in wide for part in (_divided(table, width) if width else [table])]


def eval_notes(result: Mapping[str, Any]) -> list[str]:
    """What a reader must know beside the tables: ID figures, what is missing, conventions, draws."""
    of_id, std = result["id"], result["id"].get("deviation") or {}
    notes = [
        f"ID accuracy {per_cent(of_id['accuracy'], std.get('accuracy'))} %, "
        f"ECE {per_cent(of_id['ece'], std.get('ece'))} % on {of_id['images']:,} images of {of_id['spec']}"
    ]
    if len(of_id["aurc"]) <= FEW:
        risks = [f"{score} {per_cent(v, (std.get('aurc') or {}).get(score))}" for score, v in of_id["aurc"].items()]
        notes.append(f"AURC on the same images: {', '.join(risks)}")
    convention = result["convention"]
    metric = convention["metric"]
    error = " error: detection error." if len(of_id["aurc"]) <= FEW and not result["deviation"] else ""
    notes.append(f"{heading(metric)} {convention['name']}: {convention[metric]}.{error} All in per cent.")
    notes += _deviation_notes(result)
    if result["missing"]:
        mean_of = result["mean_of"]
        notes.append(f"The mean is over {mean_of['sets']} of {mean_of['of']} sets. Missing:")
        notes += [f"  {without_name(spec, entry['reason'])}" for spec, entry in result["missing"].items()]
    notes += [f"No figures for {reason}" for reason in result["failed_scores"].values()]
    return notes


def without_name(spec: str, reason: str) -> str:
    """A reason that begins with the set's name, whether or not it did so already."""
    return reason if reason.startswith(spec) else f"{spec}: {reason}"


def eval_csv(result: Mapping[str, Any]) -> str:
    """A row per OOD set and score, then the means; shares in [0, 1], and what is missing with the reason."""
    metrics = metric_names(result["convention"]["tpr"])
    with_std = result["deviation"] is not None
    of_id, convention = result["id"], result["convention"]
    header = ["ood", "score", *metrics, *([f"{metric}_std" for metric in metrics] if with_std else [])]
    header += ["ood_images", "id_images", "id_accuracy", "id_accuracy_std", "id_ece", "id_aurc"]
    header += ["convention", "definition", "groups", "sets", MISSING]
    of_all = [of_id["images"], of_id["accuracy"], result.get("id_accuracy_std", ""), of_id["ece"]]
    about = [convention["name"], convention[convention["metric"]]]

    def rows_of(name: str, scores: Mapping, std: Mapping | None, images: object, groups: str, sets: str):
        for score, values in scores.items():
            figures = [values[metric] for metric in metrics]
            figures += [std[score][metric] if std else "" for metric in metrics] if with_std else []
            yield [name, score, *figures, images, *of_all, of_id["aurc"][score], *about, groups, sets, ""]

    def missing_row(name: str, groups: str, sets: str, reason: str):
        gaps = [""] * (len(metrics) * (2 if with_std else 1) + 2)
        return [name, *gaps, *of_all, "", *about, groups, sets, reason]

    rows: list[list[object]] = []
    for spec in result["sets"]:
        if spec in result["ood"]:
            entry = result["ood"][spec]
            groups = " ".join(entry["groups"])
            rows += rows_of(spec, entry["scores"], entry.get("std"), entry["images"], groups, "")
        else:
            entry = result["missing"][spec]
            rows.append(missing_row(spec, " ".join(entry["groups"]), "", entry["reason"]))
    for group, entry in _partial_groups(result):
        sets = f"{len(entry['sets'])} of {len(entry['sets']) + len(entry['missing'])}"
        if entry["mean"]:
            rows += rows_of(f"mean of {group}", entry["mean"], entry["std"], "", group, sets)
        else:
            rows.append(missing_row(f"mean of {group}", group, sets, "none of its sets could be had"))
    mean_of = result["mean_of"]
    rows += rows_of("mean", result["mean"], result["mean_std"], "", "", f"{mean_of['sets']} of {mean_of['of']}")
    return to_csv(header, rows)


def _by_set(result: Mapping[str, Any], title: str) -> Table:
    tpr = result["convention"]["tpr"]
    # with deviations a row is twice as wide: the paper's three metrics fit
    metrics = metric_names(tpr)[:3] if result["deviation"] else metric_names(tpr)
    rows: list[tuple[Cell, ...]] = []
    rules: list[int] = []

    def block(name: str, images: str, scores: Mapping, std: Mapping | None) -> None:
        for number, (score, values) in enumerate(scores.items()):
            figures = [per_cent(values[m], std[score][m] if std else None) for m in metrics]
            rows.append((name if number == 0 else "", score, images if number == 0 else "", *figures))
        if not scores:
            rows.append((name, MISSING, images, *[""] * len(metrics)))
        if scores:
            rules.append(len(rows) - 1)

    for spec in result["sets"]:
        entry = result["ood"].get(spec)
        if entry is None:
            block(spec, "", {}, None)
        else:
            if rows:
                rules.append(len(rows) - 1)
            block(spec, f"{entry['images']:,}", entry["scores"], entry.get("std"))
    if rows:
        rules.append(len(rows) - 1)
    for group, entry in _partial_groups(result):
        block(f"{group}: {_mean_name(entry)}", "", entry["mean"], entry["std"])
    if len(result["sets"]) > 1:
        block(_mean_name(result["mean_of"]), "", result["mean"], result["mean_std"])
    columns = ("OOD set", "score", "images", *(heading(metric) for metric in metrics))
    return Table(columns, tuple(rows), 2, frozenset(rules), title)


def _by_score(result: Mapping[str, Any], metric: str, title: str) -> Table:
    """Means first and missing sets last, for where a table is divided."""
    columns: list[tuple[str, Mapping, Mapping | None]] = []
    if len(result["sets"]) > 1:
        columns.append((_mean_name(result["mean_of"]), result["mean"], result["mean_std"]))
    for group, entry in _partial_groups(result):
        columns.append((f"{group}: {_mean_name(entry)}", entry["mean"], entry["std"]))
    columns += [(spec, entry["scores"], entry.get("std")) for spec, entry in result["ood"].items()]
    columns += [(spec, {}, None) for spec in result["missing"]]
    order = sorted(result["mean"], key=lambda score: -result["mean"][score]["auroc"])
    cells: list[list[Cell]] = []
    for _, scores, std in columns:
        texts = [per_cent(scores[s][metric], std[s][metric] if std else None) if scores else NO_FIGURE for s in order]
        cells.append(mark_best(texts, [scores[s][metric] for s in order] if scores else [], metric))
    rows = tuple(zip(order, *cells, strict=True))
    return Table(("score", *(name for name, _, _ in columns)), rows, 1, title=title)


def mark_best(texts: Sequence[str], values: Sequence[float], metric: str) -> list[Cell]:
    """Figures as cells, the best of them marked once rounded, unless all are the same."""
    if not values:
        return list(texts)
    rounded = [round(100 * value, 2) for value in values]
    best = max(rounded) if metric in ("auroc", "aupr_in", "aupr_out", "accuracy") else min(rounded)
    several = len(set(rounded)) > 1
    return [((text, several and value == best),) for text, value in zip(texts, rounded, strict=True)]


def _divided(table: Table, width: int) -> list[Table]:
    """The same table as several that fit a width, each with the labels; long headings are broken between words.

    Missing sets that do not fit into the first are left to the notes.
    """

    def widths_of(columns: Sequence[str]) -> list[int]:
        figures = [max(len(_plain(row[n])) + 1 for row in table.rows) for n in range(len(columns))]
        lines = [max(map(len, column.splitlines())) for column in columns]
        return [max(pair) + GAP for pair in zip(figures, lines, strict=True)]

    if sum(widths_of(table.columns)) <= width:
        return [table]
    columns = [column.replace(": ", ":\n").replace(" of ", " of\n", 1) for column in table.columns]
    columns = [re.sub(r"(?<=\w):(?=\w)", ":\n", column) for column in columns]
    widths = widths_of(columns)
    parts: list[list[int]] = [[]]
    used = widths[0]
    for number in range(1, len(columns)):
        if used + widths[number] > width and parts[-1]:
            parts.append([])
            used = widths[0]
        parts[-1].append(number)
        used += widths[number]
    parts[1:] = [part for part in parts[1:] if any(row[n] != NO_FIGURE for row in table.rows for n in part)]
    return [
        Table(
            tuple(columns[n] for n in (0, *part)),
            tuple(tuple(row[n] for n in (0, *part)) for row in table.rows),
            1,
            title=table.title if number == 0 else "",
        )
        for number, part in enumerate(parts)
    ]


def _plain(cell: Cell) -> str:
    return cell if isinstance(cell, str) else " / ".join(text for text, _ in cell)


def _partial_groups(result: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Groups that are not all there is: their means differ from the mean over all sets."""
    groups = result["groups"].items()
    return [(g, entry) for g, entry in groups if len(entry["sets"]) + len(entry["missing"]) < len(result["sets"])]


def _mean_name(mean_of: Mapping[str, Any]) -> str:
    """``mean``, or of how many sets it is where some are missing; of a result or of a group."""
    if "of" in mean_of:
        sets, of = mean_of["sets"], mean_of["of"]
        return "mean" if sets == of else f"mean of {sets} of {of} sets"
    sets, of = len(mean_of["sets"]), len(mean_of["sets"]) + len(mean_of["missing"])
    return "mean" if sets == of else f"mean of {sets} of {of}"


def _deviation_notes(result: Mapping[str, Any]) -> list[str]:
    deviation, draws = result["deviation"], result["draws"]
    notes = []
    if deviation and deviation["over"] == "seeds":
        notes.append(f"Mean ± {deviation['kind']} over {deviation['number']} seeds.")
    if draws:
        text = f"{draws['number']} draws of {draws['size']:,} images of each OOD set, seed {draws['seed']}"
        if deviation["over"] == "draws":
            text = f"Mean ± {deviation['kind']} over {text}"
        whole = [spec for spec, entry in result["ood"].items() if entry["images"] <= draws["size"]]
        smaller = f"; taken whole, having no more: {', '.join(whole)}" if whole else ""
        notes.append(f"{text}{smaller}.")
    return notes
