"""Plots of an evaluation. The figures are computed elsewhere; these only show them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from srood.files import replace_file

ID_COLOUR, OOD_COLOUR = "#4477aa", "#cc6677"


def plot_histograms(id_scores: np.ndarray, ood_scores: dict[str, np.ndarray], name: str, path: Path) -> None:
    """Histograms of one score, a panel per OOD set, each against the ID images; areas are one.

    Args:
        id_scores: (N,)
        ood_scores: (M,) by the name of the OOD set
        name: the score's name
        path: the PNG to write
    """
    figure = new_figure(min(3, len(ood_scores)), -(-len(ood_scores) // 3), panel=(4.2, 3.0))
    everything = np.concatenate([id_scores, *ood_scores.values()])
    low, high = np.quantile(everything, [0.001, 0.999])  # a few far images would flatten the rest
    bins = np.linspace(low, high if high > low else low + 1, 61)
    columns, rows = min(3, len(ood_scores)), -(-len(ood_scores) // 3)
    for number, (ood, scores) in enumerate(ood_scores.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        for values, colour, label in ((id_scores, ID_COLOUR, "ID"), (scores, OOD_COLOUR, ood)):
            values = np.clip(values, bins[0], bins[-1])
            axes.hist(values, bins=bins, density=True, alpha=0.6, color=colour, label=f"{label} ({len(values):,})")
        axes.set_title(ood)
        axes.set_xlabel(f"{name} (larger = more OOD)")
        axes.set_ylabel("density")
        axes.legend(frameon=False, fontsize="small")
    save_figure(figure, path)


def plot_roc(
    id_scores: np.ndarray, ood_scores: dict[str, np.ndarray], name: str, path: Path, tpr: float = 0.95
) -> None:
    """ROC curves of one score, a line per OOD set, OOD positive; the legend gives the areas.

    Args:
        id_scores: (N,)
        ood_scores: (M,) by the name of the OOD set
        name: the score's name
        path: the PNG to write
        tpr: where a line is drawn
    """
    from sklearn.metrics import auc

    figure = new_figure(1, 1, panel=(5.6, 5.0))
    axes = figure.add_subplot(1, 1, 1)
    for ood, scores in ood_scores.items():
        flagged_id, flagged_ood = roc(id_scores, scores)
        axes.plot(flagged_id, flagged_ood, label=f"{ood}: AUROC {100 * auc(flagged_id, flagged_ood):.2f} %")
    axes.plot([0, 1], [0, 1], color="0.7", linestyle=":", label="chance")
    axes.axhline(tpr, color="0.5", linewidth=0.8, linestyle="--")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.005)
    axes.set_aspect("equal")
    axes.set_title(f"score: {name}")
    axes.set_xlabel("share of ID images flagged (FPR)")
    axes.set_ylabel(f"share of OOD images flagged (TPR); dashed: {100 * tpr:g} %")
    axes.legend(loc="lower right", frameon=False, fontsize="small")
    save_figure(figure, path)


def roc(id_scores: np.ndarray, ood_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FPR and TPR with OOD positive, where the curve has corners."""
    from sklearn.metrics import roc_curve

    positive = np.arange(len(id_scores) + len(ood_scores)) >= len(id_scores)
    flagged_id, flagged_ood, _ = roc_curve(positive, np.concatenate([id_scores, ood_scores]))
    return flagged_id, flagged_ood


def new_figure(columns: int, rows: int, panel: tuple[float, float]):
    """An empty figure with room for panels, `panel` inches each; it needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure, path: Path) -> None:
    """Write a PNG whole; the same figure gives the same bytes. A ``$`` in a name is no formula."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    replace_file(path, lambda beside: figure.savefig(beside, format="png", dpi=150, metadata={"Software": None}))
