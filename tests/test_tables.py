"""Tables in every form, parsed back into the figures that went in."""

from __future__ import annotations

import csv
import io
import re

from train.evaluation.eval_tables import _divided, mark_best
from train.evaluation.tables import Table, per_cent, print_tables, to_csv, to_latex, to_markdown

TABLE = Table(
    ("run", "ID accuracy", "textures\n& more"),
    (
        ("a_b|c", (("91.73", False),), (("38.94", True), ("89.92 ± 0.50", False))),
        ("50 % ~ {x}", (("92.00", True),), "missing"),
    ),
    title="FPR95 / AUROC #1",
    notes=("95 % of the images.",),
)


def test_markdown_can_be_read_back():
    lines = to_markdown(TABLE).splitlines()
    assert lines[0] == "FPR95 / AUROC #1"
    assert lines[-1] == "95 % of the images."
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    assert [cell.strip() for cell in rows[0]] == ["run", "ID accuracy", "textures & more"]
    assert rows[1] == ["---", "---:", "---:"]
    assert [cell.strip().replace("\\|", "|") for cell in rows[2]] == ["a_b|c", "91.73", "**38.94** / 89.92 ± 0.50"]
    assert [cell.strip() for cell in rows[3]] == ["50 % ~ {x}", "**92.00**", "missing"]


def test_latex_can_be_read_back():
    text = to_latex(TABLE)
    assert r"\caption{FPR95 / AUROC \#1}" in text
    assert r"\begin{tabular}{lrr}" in text
    for command in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{command}") == 1
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [re.split(r"(?<!\\)&", line.removesuffix(r"\\")) for line in body.splitlines() if line.endswith(r"\\")]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert cells[0] == ["run", "ID accuracy", r"textures \& more"]
    assert cells[1] == ["a\\_b|c", "91.73", r"\textbf{38.94} / 89.92 $\pm$ 0.50"]
    assert cells[2] == [r"50 \% \textasciitilde{} \{x\}", r"\textbf{92.00}", "missing"]
    assert r"95 \% of the images." in text


def test_a_printed_table_marks_the_best_and_is_not_folded_in_a_pipe(capsys):
    wide = Table(
        ("run", "figure"), (("x" * 200, (("1.00", False),)), ("y", (("2.00", True),))), title="t", notes=("n",)
    )
    print_tables([wide], ["last"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert set(lines.pop(2)[0]) == {"─"}
    assert lines == [["t"], ["run", "figure"], ["x" * 200, "1.00"], ["y", "2.00*"], ["n"], ["last"]]


def test_csv_holds_numbers_in_full_and_any_text():
    text = to_csv(["name", "value"], [['a, "b"\nc', 1 / 3], ["d", ""]])
    rows = list(csv.reader(io.StringIO(text)))
    assert rows == [["name", "value"], ['a, "b"\nc', repr(1 / 3)], ["d", ""]]
    assert float(rows[1][1]) == 1 / 3


def test_per_cent():
    assert per_cent(0.38937) == "38.94"
    assert per_cent(0.38937, 0.0052) == "38.94 ± 0.52"


def test_the_best_is_what_is_best_as_shown():
    assert mark_best(["50.00", "50.00", "49.99"], [0.5, 0.500001, 0.4999], "auroc") == [
        (("50.00", True),),
        (("50.00", True),),
        (("49.99", False),),
    ]
    assert [cell[0][1] for cell in mark_best(["1", "2"], [0.01, 0.02], "fpr95")] == [True, False]
    assert [cell[0][1] for cell in mark_best(["1", "2"], [0.01, 0.02], "detection_error")] == [True, False]
    assert [cell[0][1] for cell in mark_best(["1", "2"], [0.01, 0.02], "aupr_out")] == [False, True]
    assert [cell[0][1] for cell in mark_best(["1", "1"], [0.01, 0.01], "auroc")] == [False, False]  # says nothing


def test_a_table_too_wide_is_divided_between_columns_and_loses_none(capsys):
    names = [f"set number {n}" for n in range(9)]
    rows = tuple((f"score-{r}", *[((f"{10 * r}.00", False),)] * 9) for r in range(3))
    parts = _divided(Table(("score", *names), rows, title="all"), 60)
    assert len(parts) > 1
    assert [column for part in parts for column in part.columns[1:]] == names
    assert all(
        part.columns[0] == "score" and [row[0] for row in part.rows] == [row[0] for row in rows] for part in parts
    )
    print_tables(parts)
    assert max(len(line.rstrip()) for line in capsys.readouterr().out.splitlines()) <= 60
