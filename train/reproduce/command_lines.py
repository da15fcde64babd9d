"""The commands that make a cell again, letter by letter."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.config import AnyConfig
from train.curate_command import option_words
from train.reproduce.cells import Cell, Run


def commands_of(cell: Cell, inputs: str) -> list[str]:
    """The commands of a cell from nothing to its evaluation; none where it cannot be run.

    `inputs` is the command for what no other makes: sets that an experiment makes for itself.
    """
    run, evaluation = cell.run, cell.evaluation
    if run is None or evaluation is None:
        return []
    lines = _of_run(run)
    options: dict[str, Any] = {"ood": list(evaluation.ood.values()), "score": list(evaluation.scores)}
    if run.config is None:
        options |= {"model": cell.network, "id": evaluation.id_spec}
    options |= {"protocol": evaluation.protocol, "convention": evaluation.convention, "out": evaluation.folder}
    lines.append(_line(["srood", "eval", str(run.subject)], options))
    made = bool(run.made) or any(spec != name for name, spec in evaluation.ood.items())
    bare = run.outliers is not None and not run.outliers.curated
    return ([inputs] if made or bare else []) + lines


def _of_run(run: Run) -> list[str]:
    lines = _of_run(run.start) if run.start is not None else []
    if run.outliers is not None and run.outliers.curated:
        lines.append(_line(["curate", "build"], run.outliers.options))
    if run.config is not None:
        program = "pretrain" if run.config.workflow == "pretrain" else "train"
        lines.append(_line(["srood", program], _settings(run.config) | {"out": run.folder}))
    return lines


def _settings(config: AnyConfig) -> dict[str, Any]:
    values = {name: getattr(config, name) for name in type(config).model_fields if name in config.model_fields_set}
    options = values.pop("method_options", {})
    return values | {"method_option": [f"{name}={value:g}" for name, value in options.items()]}


def _line(words: list[str], options: Mapping[str, Any]) -> str:
    return " ".join(_quoted(word) for word in words + option_words(options))


def _quoted(word: str) -> str:
    """A word for a shell; a path below $SROOD_DATA is written with the variable."""
    root = os.environ.get("SROOD_DATA")
    before, prefix, after = word.rpartition(":") if word.startswith("checkpoint:") else ("", "", word)
    if root and Path(after).is_absolute() and Path(after).is_relative_to(root):
        return f'{before}{prefix}"$SROOD_DATA/{Path(after).relative_to(root)}"'
    return shlex.quote(word)
