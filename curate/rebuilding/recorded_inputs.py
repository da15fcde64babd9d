"""The settings and inputs of a build out of its manifest: found again, and compared with what is recorded of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from curate import quality
from curate.config import BuildConfig
from curate.embedders import Embedder, open_embedder
from curate.excluded_rows import OPTION, ExcludedRows, read_excluded_rows
from curate.inputs import Inputs, put_together
from curate.rebuilding.recorded_sets import SHOWN, Found, local_paths, not_found, open_id, open_set, unlike
from curate.record import versions
from curate.sources import Corpus, one_after_another
from srood import images
from srood.datasets import ImageSource
from srood.errors import InputError
from srood.hashes import file_sha256
from srood.manifest_fields import lacking


@dataclass
class Recorded:
    """Settings and inputs of a build out of its manifest; `inputs` is None where one was not found again."""

    config: BuildConfig
    inputs: Inputs | None = None
    found: list[Found] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)  # of what is no input: settings, labels

    @property
    def problems(self) -> list[str]:
        """Why the set cannot be made again as it was."""
        return [entry.problem for entry in self.found if entry.problem] + self.differences


def find_inputs(manifest: Mapping[str, Any], look_in: Sequence[Path] = (), embedder: str | None = None) -> Recorded:
    """Find every input that a manifest records; what is missing or another is said in the result, not raised.

    Args:
        manifest: of a set that `curate build` wrote.
        look_in: folders that may hold the local files and folders it names, beside the working folder.
        embedder: ``checkpoint:PATH`` or ``onnx:PATH``; thumbnails and timm's models are named by the manifest.

    Raises:
        InputError: the manifest does not say how the set was made.
    """
    result = Recorded(BuildConfig(**_settings(manifest)))
    opened = [open_set("source", entry, look_in, result.found, stream=True) for entry in manifest["sources"]]
    name, id_sets = open_id(result.config.id, _id_records(manifest), look_in, result.found)
    also = [open_set("protected set", record, look_in, result.found) for record in _protected_records(manifest)[1]]
    opened_embedder = _open_embedder(manifest, embedder, result)
    _find_labels(look_in, result)
    result.config = replace(result.config, id=name)
    result.differences += _other_settings(manifest, result.config)
    corpus_sources = [source for source in opened if source]
    left_out = None
    if len(corpus_sources) == len(opened):
        left_out = _open_excluded_rows(manifest, corpus_sources, look_in, result)
    if result.problems or opened_embedder is None:
        return result
    # exactly the sets that were read then, whatever could be reached now
    gone = manifest.get("missing_sources") or ()
    missing = [{"set": name, "why": f"{name}, which was not found when the set was made"} for name in gone]
    unread = manifest.get("unread_sources") or ()
    corpus = one_after_another(result.config.source, corpus_sources, missing, unread, left_out)
    test = id_sets[1] if len(id_sets) > 1 else None
    protected = [source for source in also if source]
    result.inputs = put_together(result.config, corpus, id_sets[0], test, protected, opened_embedder)
    result.differences += _other_labels(manifest, corpus, result.inputs)
    return result


def other_versions(manifest: Mapping[str, Any]) -> list[str]:
    """Software of another version here than when the set was made: ``torch 2.8 here, 2.7 recorded``."""
    recorded, here = manifest.get("versions") or {}, versions()
    names = [*here, *(recorded.keys() - here.keys())]
    return [
        f"{name} {here.get(name, 'unknown')} here, {recorded.get(name, 'unknown')} recorded"
        for name in names
        if here.get(name) != recorded.get(name)
    ]


# ---- settings -------------------------------------------------------------------------------------------------------


def _settings(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `BuildConfig`; paths stay names, to be found later."""
    config = manifest.get("config") or {}
    lacks = [name for name in ("source", "size", "id", "embedder") if name not in config]
    lacks += [name for name in ("sources", "id_filter", "leak_certificate") if not manifest.get(name)]
    if not lacks:
        of_id = ["id_filter.id_sets.name"] if "id_sets" in manifest["id_filter"] else []  # older sets have none
        lacks = lacking(manifest, ["sources.name", "leak_certificate.protected.name", *of_id])
    if lacks:
        raise InputError(f"the manifest does not say how the set was made: it lacks {', '.join(lacks)}")
    known = {entry.name for entry in fields(BuildConfig)}
    settings = {name: value for name, value in config.items() if name in known}
    settings["source"], settings["protect"] = tuple(config["source"]), tuple(config.get("protect") or ())
    settings["exclude_indices"] = Path(config["exclude_indices"]) if config.get("exclude_indices") else None
    settings["quality"], settings["max_upscale"] = quality.options(config.get("quality"))
    return settings


def _other_settings(manifest: Mapping[str, Any], config: BuildConfig) -> list[str]:
    """Settings that this version of the software would use otherwise, such as a limit that it has changed."""
    here = {**config.recorded(), "resampling": images.REDUCED}
    recorded = {**manifest["config"], "resampling": manifest.get("resampling", images.REDUCED)}
    return [
        f"setting {name}: is {here.get(name)!r} in this version of srood, recorded {value!r}"
        for name, value in recorded.items()
        if here.get(name) != value
    ]


def _find_labels(look_in: Sequence[Path], result: Recorded) -> None:
    """Find the file of labels to exclude; whether it excludes what was excluded, `_other_labels` says."""
    name = result.config.exclude_labels
    if name in ("auto", "none"):
        return
    path = next(local_paths(name, look_in), None)
    problem = "" if path else not_found("--exclude-labels", name, look_in)
    result.found.append(Found("labels to exclude", name, "a local file" if path else "", problem=problem))
    result.config = replace(result.config, exclude_labels=str(path or name))


def _other_labels(manifest: Mapping[str, Any], corpus: Corpus, inputs: Inputs) -> list[str]:
    here = {corpus.class_names[label] for label in inputs.labels.excluded}
    recorded = set(manifest.get("excluded_labels") or {})
    if here == recorded:
        return []
    names = sorted(here ^ recorded)
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    how = f"--exclude-labels {manifest['config'].get('exclude_labels', 'auto')}"
    return [f"{how}: {len(here - recorded)} labels more and {len(recorded - here)} fewer than were excluded ({some})"]


# ---- inputs ---------------------------------------------------------------------------------------------------------


def _protected_records(manifest: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Of the protected sets those of the ID set, which come first, and those named by --protect."""
    protected = list(manifest["leak_certificate"].get("protected") or ())
    named = [spec for spec in manifest["config"].get("protect") or () if spec != "none"]
    of_id = len(protected) - len(named)
    return protected[:of_id], protected[of_id:]


def _id_records(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is recorded of the ID train and test images; sets made before `id_sets` record these where protected."""
    return list(manifest["id_filter"].get("id_sets") or _protected_records(manifest)[0])


def _open_excluded_rows(
    manifest: Mapping[str, Any], found: Sequence[ImageSource], look_in: Sequence[Path], result: Recorded
) -> ExcludedRows | None:
    path = result.config.exclude_indices
    if path is None:
        return None
    record: dict[str, Any] = next(
        (entry["excluded_rows"] for entry in manifest["sources"] if "excluded_rows" in entry), {}
    )
    recorded = str(record.get("sha256", ""))
    files = {file: file_sha256(file) for file in local_paths(path.name, look_in) if file.is_file()}
    file = next((file for file, sha256 in files.items() if sha256 == recorded), next(iter(files), None))
    role = "rows to leave out"
    if file is None:
        result.found.append(Found(role, path.name, recorded=recorded, problem=not_found(OPTION, path.name, look_in)))
        return None
    problem = ""
    if recorded and files[file] != recorded:
        problem = f"{OPTION} {path.name}: is another list {unlike(files[file], recorded)}"
    result.found.append(Found(role, path.name, "a local file", files[file], recorded, problem))
    return None if problem else read_excluded_rows(file, record.get("counted_from"), list(found))


def _open_embedder(manifest: Mapping[str, Any], given: str | None, result: Recorded) -> Embedder | None:
    kind, record = result.config.embedder, manifest["id_filter"]
    recorded = str(record.get("embedder_fingerprint", ""))
    spec = given or (str(record.get("embedder")) if kind in ("thumbnail", "timm") else "")  # these are named in full
    if not spec or spec.partition(":")[0] != kind:
        if kind in ("thumbnail", "timm"):
            wanted = f"{record.get('embedder')} was used; leave --embedder out"
        else:
            wanted = f"{kind} weights of fingerprint {recorded[:SHOWN]}... were used; give --embedder {kind}:PATH"
        problem = f"embedder {spec}: {wanted}" if spec else f"embedder: {wanted}"
        result.found.append(Found("embedder", kind, "", "", recorded, problem))
        return None
    try:
        embedder = open_embedder(spec)
    except InputError as error:
        result.found.append(Found("embedder", kind, spec, "", recorded, str(error)))
        return None
    problem = ""
    if recorded and embedder.fingerprint != recorded:
        problem = f"embedder {spec}: is not the one that was used {unlike(embedder.fingerprint, recorded)}"
    result.found.append(Found("embedder", kind, spec, embedder.fingerprint, recorded, problem))
    result.config = replace(result.config, embedder=spec)
    return embedder
