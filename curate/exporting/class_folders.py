"""Names of folders for the labels of a corpus, which may be anything: words with slashes, reserved names, repeats."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

UNLABELLED = "unlabelled"
TABLE = "metadata.parquet"  # lies beside the folders
MAX_BYTES = 100  # of a name, in UTF-8; file systems allow 255, Windows about as much for a whole path

_FORBIDDEN = re.compile(r'[<>:"/\\|?*~\x00-\x1f\x7f\ud800-\udfff]')  # ~ is what is added here
# names of devices under Windows, whatever the extension
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
# datasets takes a path with such a word, between any of -._ 0-9 and /, for another split (datasets.data_files)
_SPLIT = re.compile(
    r"(?<![^-._ 0-9])(train|training|validation|valid|dev|val|test|testing|eval|evaluation)(?![^-._ 0-9])"
)


def folder_names(names: Sequence[str]) -> list[str]:
    """A folder for each label: its name where that can be one.

    Characters that a file name cannot hold become ``_``, names are cut to 100 bytes, ``~`` follows a name that Windows
    reserves and a word that `datasets` takes for a split (``crash test~ dummy``), and labels whose folders would be
    the same, also where case does not count, get ``~`` and their number.
    """
    cleaned = [_clean(name) for name in names]
    seen = Counter(name.casefold() for name in [*cleaned, UNLABELLED, TABLE])
    return [f"{name}~{label}" if seen[name.casefold()] > 1 or not name else name for label, name in enumerate(cleaned)]


def _clean(name: str) -> str:
    text = _FORBIDDEN.sub("_", unicodedata.normalize("NFC", name))
    # a dot hides a folder where the name begins with it, and is lost at its end
    text = text.encode()[:MAX_BYTES].decode("utf-8", "ignore").strip(" .")
    text = _SPLIT.sub(r"\1~", text)
    return f"{text}~" if _RESERVED.match(text) else text
