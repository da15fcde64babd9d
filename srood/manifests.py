"""Where the packaged YAML files live, and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from srood import yaml_files
from srood.errors import InputError


def folder() -> Path:
    """The folder that holds ``datasets``, ``sources`` and the like: inside the package, or the checkout's."""
    installed = Path(__file__).parent / "manifests"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "manifests"


def names(kind: str) -> list[str]:
    """Names of the packaged files of one kind (``datasets``, ``sources``, ``exclusions`` or ``ood``), sorted."""
    return sorted(path.stem for path in (folder() / kind).glob("*.yaml"))


def find(kind: str, name: str) -> Path | None:
    """Path of a packaged file, or None where there is no such name."""
    return folder() / kind / f"{name}.yaml" if name in names(kind) else None


def read_yaml(path: Path) -> Any:
    """Parse a YAML file of plain values (no tags).

    Raises:
        InputError: the file cannot be read or is not YAML; the message names file and line.
    """
    try:
        return yaml_files.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8; a YAML file is needed here") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where}: is not valid YAML; correct it or name another file") from error
