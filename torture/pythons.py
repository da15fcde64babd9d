"""The same set built by other versions of Python, each in a virtual environment of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from torture import processes
from torture.determinism import Way, digests, plain
from torture.trial import Trial

VERSIONS = ("3.10", "3.11", "3.12", "3.13")
INSTALLING = 900.0  # seconds that packages may take


def trials(folder: Path, settings: dict[str, Any]) -> Iterator[Trial]:
    """A set by each version; those that are not on this machine are said to be missing."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version in VERSIONS:
        if version != here:
            yield by(version, find(version), folder, settings)


def find(version: str) -> str | None:
    """The interpreter of a version, on the path or among pyenv's; None where there is none that runs."""
    root = Path("~/.pyenv/versions").expanduser()
    candidates = [shutil.which(f"python{version}"), *map(str, sorted(root.glob(f"{version}.*/bin/python")))]
    for path in filter(None, candidates):
        done = subprocess.run([path, "-c", "import venv, ssl"], capture_output=True, check=False)
        if done.returncode == 0:
            return path
    return None


def by(version: str, python: str | None, folder: Path, settings: dict[str, Any]) -> Trial:
    """A set by one version, with the packages of this process where there are such for it."""
    fault = f"a build by Python {version}"
    if python is None:
        return Trial(fault, "not installed here", True)
    own = install(python, folder / f"python-{version}")
    if isinstance(own, str):
        return Trial(fault, "packages cannot be installed here", True, own)
    out: Way = settings | plain(folder, f"by-{version}")
    words = [str(own), "-m", "torture.one_build", json.dumps([out])]
    ended = processes.finish(processes.start(words, folder), 300)
    if ended.code:
        return Trial(fault, "ended with an error", False, ended.err[-500:])
    made, expected = digests(folder / f"by-{version}"), digests(folder / "plain")
    if made == expected:
        return Trial(fault, "same bytes", True)
    if software(folder / f"by-{version}") == software(folder / "plain"):
        return Trial(fault, "other bytes", False, f"{sorted(made.items() ^ expected.items())}")
    # the manifest names the versions of packages, of which there is not the same for every Python
    same = all(made[name] == expected[name] for name in expected if "-of-" in name)
    outcome = "same bytes of all rows, by other versions of packages" if same else "other rows"
    return Trial(fault, outcome, same, f"{software(folder / f'by-{version}')}")


def install(python: str, folder: Path) -> Path | str:
    """A virtual environment with the packages that `curate` needs; the last words of pip where that failed."""
    wanted = folder.with_suffix(".txt")
    pins = {found.name: found.version for found in distributions() if found.name and "+" not in found.version}
    own = folder / "bin" / "python"
    subprocess.run([python, "-m", "venv", str(folder)], check=True, capture_output=True)
    why = ""
    for names in (sorted(pins), ["torch"], []):  # as here, or as far as there are such versions
        wanted.write_text("".join(f"{name}=={pins[name]}\n" for name in names if name in pins and name != "srood"))
        words = [str(own), "-m", "pip", "install", "--quiet", "--constraint", str(wanted), str(processes.ROOT)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=INSTALLING)
        except subprocess.TimeoutExpired:
            return f"not within {INSTALLING:.0f} s"
        if done.returncode == 0:
            return own
        why = done.stderr[-500:]
    return why


def software(folder: Path) -> dict[str, str]:
    """The versions that a set's manifest names."""
    from srood.outliers import read_manifest

    return read_manifest(folder / "mini.h5")["versions"]
