"""Plots of a comparison. The figures are computed elsewhere; these only show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from train.evaluation.plots import ID_COLOUR, OOD_COLOUR, new_figure, roc, save_figure

Pair = tuple[np.ndarray, np.ndarray]  # scores of ID images (N,) and of OOD images (M,)
# Paul Tol's bright scheme, which colour-blind people can tell apart; further rows repeat it with other lines
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
LINES = ("-", "--", "-.", ":")
ACROSS = 3  # panels in a line


def plot_rocs(pairs: Mapping[str, Mapping[str, Sequence[Pair]]], aurocs: Mapping, tpr: float, path: Path) -> None:
    """ROC curves with OOD positive: a panel for each OOD set, a line for each row and seed.

    Args:
        pairs: by OOD set and row: the scores, one pair a seed; none where the row has no such set
        aurocs: by OOD set and row, for the legend; shares
        tpr: where a line is drawn
        path: the PNG to write
    """
    across = min(ACROSS, len(pairs))
    down = -(-len(pairs) // across)
    figure = new_figure(across, down, (4.6, 4.6))
    for number, (ood, by_row) in enumerate(pairs.items(), start=1):
        axes = figure.add_subplot(down, across, number)
        for position, (row, seeds) in enumerate(by_row.items()):
            colour, line = COLOURS[position % len(COLOURS)], LINES[position // len(COLOURS) % len(LINES)]
            for seed, (id_scores, ood_scores) in enumerate(seeds):
                label = f"{row}: {100 * aurocs[ood][row]:.2f} %" if seed == 0 else None
                axes.plot(*roc(id_scores, ood_scores), color=colour, linestyle=line, linewidth=1.2, label=label)
            if not seeds:
                axes.plot([], [], color=colour, linestyle=line, label=f"{row}: no scores")
        axes.axhline(tpr, color="0.5", linewidth=0.8, linestyle="--")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.005)
        axes.set_aspect("equal")
        axes.set_title(ood)
        axes.set_xlabel("share of ID images flagged (FPR)")
        axes.set_ylabel(f"share of OOD images flagged (TPR); dashed: {100 * tpr:g} %")
        axes.legend(loc="lower right", frameon=False, fontsize="small", title="AUROC", title_fontsize="small")
    save_figure(figure, path)


def plot_score_grid(pairs: Mapping[str, Mapping[str, Sequence[Pair]]], path: Path) -> None:
    """Histograms of scores, areas one: a line of panels for each row, a panel for each OOD set; seeds together.

    Args:
        pairs: as for `plot_rocs`
        path: the PNG to write
    """
    rows = list(next(iter(pairs.values())))
    figure = new_figure(len(pairs), len(rows), (3.0, 2.2))
    for down, row in enumerate(rows):
        everything = [values for by_row in pairs.values() for pair in by_row[row] for values in pair]
        low, high = np.quantile(np.concatenate(everything), [0.001, 0.999]) if everything else (0.0, 1.0)
        bins = np.linspace(low, high if high > low else low + 1, 61)  # a few far images would flatten the rest
        for across, (ood, by_row) in enumerate(pairs.items()):
            axes = figure.add_subplot(len(rows), len(pairs), down * len(pairs) + across + 1)
            for index, colour, label in ((0, ID_COLOUR, "ID"), (1, OOD_COLOUR, "OOD")):
                values = [pair[index] for pair in by_row[row]]
                if values:
                    clipped = np.clip(np.concatenate(values), bins[0], bins[-1])
                    axes.hist(clipped, bins=bins, density=True, alpha=0.6, color=colour, label=label)
            if not by_row[row]:
                axes.text(0.5, 0.5, "no scores", ha="center", va="center", transform=axes.transAxes)
            axes.set_yticks([])
            axes.tick_params(labelsize="x-small")
            if down == 0:
                axes.set_title(ood, fontsize="small")
            if down == len(rows) - 1:
                axes.set_xlabel("score (larger = more OOD)", fontsize="x-small")
            if across == 0:
                axes.set_ylabel(row, fontsize="x-small")
            if down == across == 0:
                axes.legend(frameon=False, fontsize="x-small")
    save_figure(figure, path)


def plot_accuracy(points: Mapping[str, tuple[float, float | None, float, float | None]], mean: str, path: Path) -> None:
    """ID accuracy against mean AUROC, a point for each row: up and to the right is better.

    Args:
        points: by row: ID accuracy and its deviation, AUROC and its deviation; shares
        mean: what the AUROC is the mean of
        path: the PNG to write
    """
    figure = new_figure(1, 1, (6.4, 4.6))
    axes = figure.add_subplot(1, 1, 1)
    for position, (row, (accuracy, accuracy_std, auroc, auroc_std)) in enumerate(points.items()):
        axes.errorbar(
            100 * accuracy,
            100 * auroc,
            xerr=None if accuracy_std is None else 100 * accuracy_std,
            yerr=None if auroc_std is None else 100 * auroc_std,
            color=COLOURS[position % len(COLOURS)],
            marker="osD^v<>"[position // len(COLOURS) % 7],
            linestyle="none",
            capsize=3,
            label=row,
        )
    axes.margins(0.15)
    axes.grid(color="0.9")
    axes.set_xlabel("ID accuracy, per cent")
    axes.set_ylabel(f"AUROC, {mean}, per cent")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
    save_figure(figure, path)
