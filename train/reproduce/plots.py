"""Plots of an experiment's results, with intervals over seeds. The figures are computed elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from train.evaluation.plots import new_figure, save_figure
from train.reproduce.documents import Document
from train.reproduce.experiments import MEAN, Metric
from train.reproduce.figures import Row, over_seeds, places, rows_of
from train.reproduce.statistics import Estimate
from train.reproduce.tables import HEADINGS

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#222255", "#cc6677", "#999933")
INTERVAL = "bars: 95 % t interval over seeds"


def draw(document: Document, folder: Path) -> list[Path]:
    """Draw the plots that an experiment asks for, of each protocol, ID set and network that has figures.

    Returns:
        the PNG files, named after experiment, profile and plot.
    """
    done = [row for row in rows_of(document) if row.state == "done"]
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in done:
        groups.setdefault((row.protocol, row.id_set, row.network), []).append(row)
    paths = []
    for plot in document.experiment.plots:
        drawer = DRAWERS[plot]
        for key, rows in groups.items():
            figure = drawer(document, rows)
            if figure is None:
                continue
            title = document.experiment.title + ("" if document.experiment.title.endswith("?") else ":")
            figure.suptitle(f"{title} {key[2]} on {key[1]}, {key[0]} protocol", fontsize="medium")
            name = "-".join([document.experiment.name, document.profile, plot, *(key if len(groups) > 1 else ())])
            folder.mkdir(parents=True, exist_ok=True)
            paths.append(folder / f"{name}.png")
            save_figure(figure, paths[-1])
    return paths


def by_set(document: Document, rows: Sequence[Row]) -> Any:
    """FPR95 of each method on each OOD set."""
    sets = places(document)[MEAN]
    figure = new_figure(1, 1, panel=(max(6.0, 1.6 * len(sets)), 3.8))
    axes = figure.add_subplot(1, 1, 1)
    for number, row in enumerate(rows):
        shift = 0.7 * ((number + 0.5) / len(rows) - 0.5)
        found = [(place, over_seeds(row, "fpr95", [name])) for place, name in enumerate(sets)]
        points = [(place + shift, one) for place, one in found if one is not None]
        _bars(axes, points, COLOURS[number % len(COLOURS)], _title(document, row), "o")
    axes.set_xticks(range(len(sets)), sets, fontsize="small")
    axes.set_ylabel("FPR95, per cent")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize="small")
    axes.set_xlabel(INTERVAL, fontsize="small")
    return figure


def by_method(document: Document, rows: Sequence[Row]) -> Any:
    """FPR95 of each method, a panel for each group of OOD sets and for the mean."""
    where = {name: sets for name, sets in places(document).items() if len(sets) > 1}
    figure = new_figure(len(where), 1, panel=(3.6, 0.9 + 0.32 * len(rows)))
    for number, (name, sets) in enumerate(where.items(), start=1):
        axes = figure.add_subplot(1, len(where), number)
        for place, row in enumerate(reversed(rows)):
            one = over_seeds(row, "fpr95", sets)
            if one is not None:
                error = None if one.half is None else [one.half]
                axes.errorbar([one.mean], [place], xerr=error, fmt="o", color=COLOURS[0], capsize=3)
        titles = [_title(document, row) for row in reversed(rows)]
        axes.set_yticks(range(len(rows)), titles if number == 1 else [""] * len(rows), fontsize="small")
        axes.set_title(f"{name} of {len(sets)} OOD sets", fontsize="small")
        axes.set_xlabel(f"FPR95, per cent; {INTERVAL}", fontsize="x-small")
        axes.grid(axis="x", color="0.9")
    return figure


def curve(document: Document, rows: Sequence[Row]) -> Any:
    """FPR95 and ID error against the number of outliers, of the methods that have a place on that axis."""
    placed = [(document.experiment.methods[row.method].x, row) for row in rows]
    points = sorted(((x, row) for x, row in placed if x is not None), key=lambda point: point[0])
    if len(points) < 2:
        return None
    metrics: list[Metric] = ["fpr95", "id_error"]
    figure = new_figure(len(metrics), 1, panel=(4.4, 3.4))
    for number, metric in enumerate(metrics, start=1):
        axes = figure.add_subplot(1, len(metrics), number)
        for colour, (name, sets) in enumerate(places(document).items()):
            if metric == "id_error" and name != MEAN:
                continue
            found = [(x, over_seeds(row, metric, sets)) for x, row in points]
            _bars(axes, [(x, one) for x, one in found if one], COLOURS[colour % len(COLOURS)], name, "o-")
        axes.set_xscale("log")
        axes.set_xticks([x for x, _ in points], [f"{x:,.0f}" for x, _ in points], fontsize="small", minor=False)
        axes.minorticks_off()
        axes.set_xlabel(f"outliers; {INTERVAL}", fontsize="small")
        axes.set_ylabel(f"{HEADINGS[metric]}, per cent")
        if metric == "fpr95":
            axes.legend(frameon=False, fontsize="small", ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def accuracy(document: Document, rows: Sequence[Row]) -> Any:
    """Mean FPR95 against ID error: the better method is further down and to the left."""
    sets = places(document)[MEAN]
    figure = new_figure(1, 1, panel=(6.0, 4.2))
    axes = figure.add_subplot(1, 1, 1)
    for number, row in enumerate(rows):
        x, y = over_seeds(row, "id_error", sets), over_seeds(row, "fpr95", sets)
        if x is not None and y is not None:
            axes.errorbar(
                [x.mean],
                [y.mean],
                xerr=None if x.half is None else [x.half],
                yerr=None if y.half is None else [y.half],
                fmt="o",
                color=COLOURS[number % len(COLOURS)],
                capsize=3,
                label=_title(document, row),
            )
    axes.set_xlabel(f"ID error, per cent; {INTERVAL}", fontsize="small")
    axes.set_ylabel("mean FPR95, per cent")
    axes.legend(frameon=False, fontsize="x-small")
    axes.grid(color="0.9")
    return figure


DRAWERS: dict[str, Callable[[Document, Sequence[Row]], Any]] = {
    "by-set": by_set,
    "by-method": by_method,
    "curve": curve,
    "accuracy": accuracy,
}


def _title(document: Document, row: Row) -> str:
    return document.experiment.methods[row.method].title


def _bars(axes: Any, points: Sequence[tuple[float, Estimate]], colour: str, label: str, form: str) -> None:
    if points:
        halves = [one.half or 0.0 for _, one in points]
        means = [one.mean for _, one in points]
        axes.errorbar([x for x, _ in points], means, yerr=halves, fmt=form, color=colour, capsize=3, label=label)
