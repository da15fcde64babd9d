"""Tables of figures in the forms that people read and paste: a terminal, Markdown, LaTeX; and plain CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("table", "markdown", "csv", "latex", "json")
MISSING = "missing"
PAGE = 10_000  # columns of a pipe or a file: lines are not folded there

Part = tuple[str, bool]  # a figure as text, and whether it is the best of its kind
Cell = str | tuple[Part, ...]  # words, or figures shown as "1.00 / 2.00"

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "\n": " ",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings; the first `labels` columns hold words, the others figures.

    `rules` are the rows, from 0, after which a line is drawn; `notes` are whole sentences for below the table.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    labels: int = 1
    rules: frozenset[int] = frozenset()
    title: str = ""
    notes: tuple[str, ...] = ()


def with_notes(table: Table, notes: Iterable[str]) -> Table:
    """The table with further notes."""
    return replace(table, notes=(*table.notes, *notes))


def per_cent(value: float, deviation: float | None = None) -> str:
    """A share as per cent with two decimals, ``38.94`` or ``38.94 ± 0.52``."""
    text = f"{100 * value:.2f}"
    return text if deviation is None else f"{text} ± {100 * deviation:.2f}"


def console() -> Console:
    """Where tables are printed: as wide as the terminal, and never folded in a pipe or a file."""
    from rich.console import Console

    on = Console(emoji=False, highlight=False, markup=False)
    return on if on.is_terminal else Console(emoji=False, highlight=False, markup=False, width=PAGE)


def print_tables(tables: Iterable[Table], notes: Iterable[str] = ()) -> None:
    """Print tables with their notes, then further notes; the best figures are bold and have a star."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    on = console()
    for table in tables:
        if table.title:
            on.print(Text(table.title, style="italic"))
        shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for number, name in enumerate(table.columns):
            left = number < table.labels
            shown.add_column(name, justify="left" if left else "right", overflow="fold", no_wrap=not left)
        starred = any(best for row in table.rows for cell in row if not isinstance(cell, str) for _, best in cell)
        for number, row in enumerate(table.rows):
            shown.add_row(*(_rich(cell, starred) for cell in row), end_section=number in table.rules)
        on.print(shown)
        for note in table.notes:
            on.print(note)
    for note in notes:
        on.print(note)


def to_markdown(table: Table) -> str:
    """A Markdown table, its title above and its notes below; the best figures are bold."""
    lines = [table.title, ""] if table.title else []
    lines.append(f"| {' | '.join(_words(name) for name in table.columns)} |")
    lines.append(f"|{'|'.join('---' if n < table.labels else '---:' for n in range(len(table.columns)))}|")
    for row in table.rows:
        lines.append(f"| {' | '.join(_joined(cell, '**{}**', _words) for cell in row)} |")
    for note in table.notes:
        lines += ["", note]
    return "\n".join(lines) + "\n"


def to_latex(table: Table) -> str:
    """A LaTeX table with booktabs, its title as the caption and its notes below; the best figures are bold."""
    alignment = "l" * table.labels + "r" * (len(table.columns) - table.labels)
    lines = [r"\begin{table}", r"\centering"]
    if table.title:
        lines.append(rf"\caption{{{_latex(table.title)}}}")
    lines += [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule"]
    lines.append(" & ".join(_latex(name) for name in table.columns) + r" \\")
    lines.append(r"\midrule")
    for number, row in enumerate(table.rows):
        lines.append(" & ".join(_joined(cell, r"\textbf{{{}}}", _latex) for cell in row) + r" \\")
        if number in table.rules and number + 1 < len(table.rows):
            lines.append(r"\midrule")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip\footnotesize {_latex(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def to_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV with a header; numbers are written in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _rich(cell: Cell, starred: bool):
    from rich.text import Text

    if isinstance(cell, str):
        return Text(cell)
    shown = Text()
    for number, (figure, best) in enumerate(cell):
        shown.append(" / " if number else "")
        # a pipe shows no bold; the others get a space so that the points stay in line
        shown.append(f"{figure}*" if best else f"{figure} " if starred else figure, "bold" if best else "")
    return shown


def _joined(cell: Cell, best_form: str, escape) -> str:
    if isinstance(cell, str):
        return escape(cell)
    return " / ".join(best_form.format(escape(text)) if best else escape(text) for text, best in cell)


def _words(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
