"""Publishing a run on the Hugging Face Hub: weights, settings, record, detector, measurements and a model card.

What is uploaded names no place on this machine: of every path only the last component is kept.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from srood import manifests
from srood.calibration import CALIBRATION_FILE
from srood.errors import InputError
from srood.files import check_folder
from srood.hashes import file_sha256
from srood.hub_upload import Pushed, check_branch, check_repo_name, upload
from srood.models.weights import read_info
from train import runs
from train.config import CONFIG_FILE, read_config
from train.evaluation.score_files import RESULT_FILE
from train.local_paths import folders_in, short_names, shorten, without_paths
from train.publishing.model_card import CardFacts, method_name, model_card, ood_specs

CARD, TABLE = "README.md", "eval.csv"
PLOTS = "eval*.png"


@dataclass(frozen=True)
class Prepared:
    """What is to be uploaded: a title for the commit, files with their bytes, and what was left out and why."""

    title: str
    files: dict[str, int]
    left_out: tuple[str, ...] = ()


def push(
    run: Path,
    repo: str,
    *,
    private: bool = False,
    revision: str = "main",
    message: str | None = None,
    license: str | None = None,
) -> tuple[Pushed, Prepared]:
    """Upload a finished run to a model repository, in one commit; nothing where the repository holds it already.

    Args:
        run: the run folder
        repo: ``owner/name``; made where there is none
        private: whether a new repository is private; one that is public is refused
        revision: the branch; made, from ``main``, where there is none
        message: of the commit; by default what the run is
        license: of the weights, as the Hub abbreviates it (``apache-2.0``)

    Raises:
        InputError: a run that is not finished, a name that cannot be one, or the Hub refuses or cannot be reached.
    """
    check_repo_name(repo)
    check_branch(revision)
    with TemporaryDirectory(prefix="srood-push-") as scratch:
        prepared = prepare(run, repo, Path(scratch), license=license, revision=revision)
        pushed = upload(
            Path(scratch),
            repo,
            message or prepared.title,
            private=private,
            revision=revision,
            owned=lambda name: (
                name in (RESULT_FILE, TABLE, CALIBRATION_FILE) or bool(re.fullmatch(r"eval[^/]*\.png", name))
            ),
        )
    return pushed, prepared


def prepare(run: Path, repo: str, folder: Path, *, license: str | None = None, revision: str = "main") -> Prepared:
    """Write what `push` uploads into a folder, without the network.

    Args:
        run, repo, license, revision: as `push`
        folder: new or empty

    Raises:
        InputError: a run that is not finished, an evaluation or threshold of other weights, a folder that is not empty
            or cannot be written to.
    """
    check_repo_name(repo)
    check_folder(folder, "--dry-run ")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"--dry-run {folder}: is not empty; choose another folder")
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        raise InputError(
            f"--license {license}: is not as the Hub abbreviates licences; write apache-2.0, mit, other, ..."
        )
    if not run.is_dir():
        raise InputError(f"{run}: is not a run folder; name the folder that `srood train` wrote")
    weights = runs.find_weights(run)
    read_config(run)  # a configuration that cannot be used is not published
    read_info(weights)  # nor weights that are none
    evaluation, detector = (_read_json(run / name) for name in (RESULT_FILE, CALIBRATION_FILE))
    sha256 = file_sha256(weights)
    if evaluation is not None and evaluation.get("weights", {}).get("sha256") != sha256:
        raise InputError(
            f"{run / RESULT_FILE}: was measured on other weights; run `srood eval {run}` again, or remove it"
        )
    if detector is not None and detector.get("weights_sha256", sha256) != sha256:
        raise InputError(
            f"{run / CALIBRATION_FILE}: was made for other weights; run `srood calibrate {run}` again, or remove it"
        )
    folder.mkdir(parents=True, exist_ok=True)

    # the weights' hash is in other files: where the weights change, it does there too
    _write_weights(weights, folder / runs.MODEL_FILE)
    renamed = {sha256: file_sha256(folder / runs.MODEL_FILE)}
    names = short_names(ood_specs(evaluation), are_paths=True) if evaluation is not None else {}
    documents = {
        CONFIG_FILE: manifests.read_yaml(run / CONFIG_FILE),
        runs.RECORD_FILE: runs.read_record(run),
        CALIBRATION_FILE: detector,
        RESULT_FILE: evaluation,
    }
    folders = folders_in(documents.values())
    public = {
        name: _write(run / name, document, without_paths(document, renamed | names, folders), folder)
        for name, document in documents.items()
        if document is not None
    }
    plots: list[str] = []
    left_out: list[str] = []
    if evaluation is not None:
        if (run / TABLE).is_file():
            _write_table(run / TABLE, names, folders, folder / TABLE)
        plots = [path.name for path in sorted(run.glob(PLOTS))]
        if any(name != short for name, short in names.items()):
            left_out = [f"{name} is left out: it shows a path of this machine" for name in plots]
            plots = []
        for name in plots:
            shutil.copyfile(run / name, folder / name)

    record = public[runs.RECORD_FILE]
    facts = CardFacts(
        repo=repo,
        revision=revision,
        config=public[CONFIG_FILE],
        record=record,
        info=read_info(folder / runs.MODEL_FILE),
        evaluation=public.get(RESULT_FILE),
        detector=public.get(CALIBRATION_FILE),
        plots=plots,
        license=license,
    )
    (folder / CARD).write_text(model_card(facts), encoding="utf-8")
    title = f"{method_name(facts)} of {record['model']} on {record['id']['name']}"
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    return Prepared(title, files, tuple(left_out))


def _write_weights(weights: Path, out: Path) -> None:
    """The weights file, byte for byte where its metadata hold no path."""
    with open(weights, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    metadata = header.get("__metadata__", {})
    public = without_paths(metadata)
    if public == metadata:
        shutil.copyfile(weights, out)
        return
    text = json.dumps({**header, "__metadata__": public}, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(weights, "rb") as file, open(out, "wb") as written:
        file.seek(8 + length)
        written.write(len(text).to_bytes(8, "little") + text)
        shutil.copyfileobj(file, written)


def _write(path: Path, document: Any, public: Any, folder: Path) -> Any:
    """Write what is public of one of the run's documents, byte for byte where that is all of it, and return it."""
    if public == document:
        shutil.copyfile(path, folder / path.name)
    elif path.suffix == ".json":
        (folder / path.name).write_text(json.dumps(public, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        text = yaml.safe_dump(public, sort_keys=False, allow_unicode=True)
        (folder / path.name).write_text(text, encoding="utf-8")
    return public


def _write_table(path: Path, names: dict[str, str], folders: Sequence[str], out: Path) -> None:
    with open(path, newline="", encoding="utf-8") as file:
        rows: Sequence[Sequence[str]] = list(csv.reader(file))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([[names.get(cell) or shorten(cell, folders=folders) for cell in row] for row in rows])
    out.write_text(text.getvalue(), encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); make it again, or remove it") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: is not what srood wrote; make it again, or remove it")
    return document
