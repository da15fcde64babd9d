"""Which Parquet files hold a split of an image set, in a folder or in a repository of the Hub."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

from srood import hub
from srood.errors import InputError

_NUMBER = r"[-_]?\d+(-of-\d+(-\w+)?)?"  # of a part: train-00000-of-00002, train-00000-of-00001-4d2f, train_0


def local_files(folder: Path, split: str) -> list[Path]:
    """``SPLIT.parquet`` of a folder or its numbered parts; ``test_corrupted.parquet`` is no part of ``test``.

    Raises:
        InputError: there are both.
    """
    named = re.compile(rf"{re.escape(split)}({_NUMBER})?\.parquet")
    found = sorted(path for path in folder.glob(f"{split}*.parquet") if named.fullmatch(path.name))
    whole = folder / f"{split}.parquet"
    parts = [path for path in found if path != whole]
    if whole in found and parts:
        raise InputError(f"{folder}: holds {whole.name} and {parts[0].name}, one split twice; remove one")
    return found


def matching(found: hub.Listing, pattern: str) -> tuple[hub.HubFile, ...]:
    """The files whose path matches a glob (``*`` also matches ``/``).

    Raises:
        InputError: none does.
    """
    files = tuple(file for file in found.files if fnmatch.fnmatchcase(file.name, pattern))
    if not files:
        raise InputError(f"hf://{found.repo}@{found.commit}: no file matches {pattern}; {_it_has(found)}")
    return files


def parquet_of(found: hub.Listing, split: str) -> tuple[hub.HubFile, ...]:
    """The Parquet files of a split, or all of them where `split` is empty.

    A file is of a split when it is named after it, or lies in a folder that is: ``data/train-00000-of-00002.parquet``,
    ``train.parquet`` and ``default/train/0000.parquet`` are of ``train``, ``data/train_extra.parquet`` is not. Only
    where there is no such file are those taken whose path holds the name as a word: ``cifar_train.parquet``. Where
    several configurations hold the split, `split` names one: ``cropped_digits/train``, ``/train`` for the top folder.

    Raises:
        InputError: no file is of the split, or files of several configurations are.
    """
    address = f"hf://{found.repo}@{found.commit}"
    files = [file for file in found.files if file.name.endswith(".parquet")]
    if split:
        named, last = [(file, _named_after(file.name, split)) for file in files], split.rpartition("/")[2]
        if all(folder is None for _, folder in named):
            named, last = [(file, _holding_the_word(file.name, split)) for file in files], split
        files = [file for file, folder in named if folder is not None]
        folders = sorted({folder for _, folder in named if folder is not None})
        if len(folders) > 1:
            places = ", ".join(folder or "the top folder" for folder in folders)
            first = next(folder for folder in folders if folder)
            raise InputError(f"{address}:{split}: is in {places}; name one, as in :{first}/{last}")
    if not files:
        raise InputError(f"{address}{':' if split else ''}{split}: no Parquet file matches; {_it_has(found)}")
    return tuple(files)


def _named_after(name: str, split: str) -> str | None:
    """The folder in which a file, or a folder that it lies in, has a split's name; None where none has."""
    prefix, _, wanted = split.rpartition("/")
    *folders, last = name.removesuffix(".parquet").split("/")
    places = [number for number, part in enumerate(folders) if part == wanted]
    if wanted in (last, re.sub(f"{_NUMBER}$", "", last)):
        places.append(len(folders))
    # the last occurrence: data/train/train-0.parquet and data/train/train-1.parquet are of one configuration
    for place in reversed(places):
        folder = "/".join(folders[:place])
        if "/" not in split or folder == prefix or (prefix and folder.endswith(f"/{prefix}")):
            return folder
    return None


def _holding_the_word(name: str, split: str) -> str | None:
    hits = list(re.finditer(rf"(?<![A-Za-z0-9]){re.escape(split)}(?![A-Za-z])", name.removesuffix(".parquet")))
    return name[: hits[-1].start()].rpartition("/")[0] if hits else None


def _it_has(found: hub.Listing) -> str:
    names = [file.name for file in found.files if file.name.endswith(".parquet")]
    if not names:
        return f"it has no Parquet; the Hub's own conversion may be at hf://{found.repo}@refs/convert/parquet"
    return f"its Parquet files are {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
