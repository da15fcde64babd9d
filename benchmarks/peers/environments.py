"""Peers in environments of their own: they want other versions of NumPy and Pillow than this project."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

FOLDER = Path(__file__).parent.parent.parent / ".venv-peers"
REQUIREMENTS = {"fastdup": "fastdup==2.54", "imagededup": "imagededup==0.3.3.post2"}
LIMIT = 1800  # seconds for an installation


class Unavailable(Exception):
    """A peer that cannot be installed here; the message says why."""


def python_of(peer: str, folder: Path = FOLDER) -> Path:
    """The Python of a key of REQUIREMENTS, installed below `folder` the first time.

    Raises:
        Unavailable: pip cannot install it, or takes too long.
    """
    own = folder / peer
    python, done = own / "bin" / "python", own / "installed.txt"
    wanted = REQUIREMENTS[peer]
    if done.exists() and done.read_text() == wanted:
        return python
    venv.create(own, with_pip=True, clear=True)
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wanted]
    try:
        pip = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"pip install {wanted}: not done after {LIMIT} s") from None
    if pip.returncode:
        raise Unavailable(f"pip install {wanted}: {' '.join(pip.stderr.split()[-40:])}")
    done.write_text(wanted)  # last: an installation that was interrupted is made anew
    return python
