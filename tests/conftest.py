"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def srood_data() -> Path:
    """The folder of real image sets named by the environment variable SROOD_DATA; skips where there is none."""
    value = os.environ.get("SROOD_DATA")
    if not value or not Path(value).is_dir():
        pytest.skip("needs real image sets: set SROOD_DATA to their folder")
    return Path(value)
