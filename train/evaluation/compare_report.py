"""A comparison written into a folder: tables to paste, figures to read by program, plots."""

from __future__ import annotations

import json
from pathlib import Path

from srood.files import check_folder, write_text
from train.evaluation.compare import Comparison, score_pairs
from train.evaluation.compare_plots import plot_accuracy, plot_rocs, plot_score_grid
from train.evaluation.compare_tables import (
    compact_table,
    compare_csv,
    compare_values,
    mean_name,
    notes,
    row_names,
    wide_table,
)
from train.evaluation.tables import to_latex, to_markdown, with_notes

MAX_PANELS = 60  # of histograms in one picture


def write_comparison(comparison: Comparison, folder: Path, compact: bool = False) -> list[str]:
    """Write compare.md, .csv, .tex and .json, compare-roc.png, compare-scores.png and compare-accuracy.png.

    Args:
        comparison: what `train.evaluation.compare.compare` returns
        folder: made where there is none
        compact: whether the tables hold the mean over the OOD sets with all metrics, instead of every set

    Returns:
        notes about what was left out.

    Raises:
        InputError: `folder` cannot be written to, or a run has no scores of its images.
    """
    check_folder(folder, "--out ")
    # the scores are read first: a run that kept none leaves nothing half written
    names = row_names(comparison)
    rows = dict(zip(names, comparison.rows, strict=True))
    pairs = {ood: {name: score_pairs(row, ood) for name, row in rows.items()} for ood in comparison.columns}
    pairs = {ood: by_row for ood, by_row in pairs.items() if any(by_row.values())}

    folder.mkdir(parents=True, exist_ok=True)
    table = (compact_table if compact else wide_table)(comparison)
    table = with_notes(table, notes(comparison))
    write_text(folder / "compare.md", to_markdown(table))
    write_text(folder / "compare.tex", to_latex(table))
    write_text(folder / "compare.csv", compare_csv(comparison))
    write_text(folder / "compare.json", json.dumps(compare_values(comparison), indent=2, ensure_ascii=False) + "\n")

    left_out = []
    aurocs = {
        ood: {name: row.figures[ood]["auroc"] for name, row in rows.items() if ood in row.figures} for ood in pairs
    }
    plot_rocs(pairs, aurocs, comparison.convention["tpr"], folder / "compare-roc.png")
    if len(rows) * len(pairs) <= MAX_PANELS:
        plot_score_grid(pairs, folder / "compare-scores.png")
    else:
        left_out.append(f"compare-scores.png: {len(rows)} rows and {len(pairs)} sets are too many panels; not drawn")
    points = {
        name: (row.accuracy, row.accuracy_std, row.mean["auroc"], (row.mean_std or {}).get("auroc"))
        for name, row in rows.items()
        if row.mean
    }
    if points:
        plot_accuracy(points, mean_name(comparison), folder / "compare-accuracy.png")
    else:
        left_out.append("compare-accuracy.png: the runs have no OOD set in common; not drawn")
    return left_out
