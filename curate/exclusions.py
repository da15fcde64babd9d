"""Which corpus labels are excluded for an ID set, and why: from the packaged file, or from WordNet by class names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from curate import semantics, sources, wordnet
from srood import datasets, manifests, parquet, yaml_files
from srood.containers.parquet_file import ParquetImages
from srood.errors import InputError
from srood.files import write_text

HEADER = """\
# Corpus labels that show a class of {name}, derived from WordNet 3.0 by `curate exclusions`.
#
# Edit it and give it to `curate build --exclude-labels FILE`. Delete or add lines `nXXXXXXXX: word, word` under
# `synsets` (what is excluded); `roots` says which senses of the class names were taken and why, `words` are excluded
# wherever a label holds them, `not_words` never count by themselves, `ambiguous` are words with other meanings, and
# `doubtful` are synsets of a less usual sense of a class name.
#
# WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved. Used under the WordNet 3.0 licence
# (https://wordnet.princeton.edu/license-and-commercial-use).

"""


def derive(name: str, class_names: Sequence[str]) -> dict[str, Any]:
    """Exclusions for any ID set, in the form of manifests/exclusions: every synset at or below a sense of a class name.

    A class name that WordNet does not know is matched as a word (`words`); one without two letters in a row is left
    out. Raises InputError where no class name can be used.
    """
    nouns = wordnet.load()
    content: dict[str, Any] = {"name": name, "roots": {}, "words": {}, "not_words": {}, "synsets": {}}
    sure: set[str] = set()
    unsure: dict[str, str] = {}
    for label in class_names:
        meant = wordnet.meaning(label, nouns).synsets
        own = [phrase for phrase in semantics.words_of(label) if re.search(r"[^\W\d_]{2}", phrase)]
        if meant:
            roots = [{"wnid": wnid, "words": nouns.phrase(wnid), "why": why} for wnid, why in meant.items()]
            content["roots"][label] = roots
            content["synsets"][label] = {wnid: nouns.phrase(wnid) for wnid in sorted(nouns.below(meant))}
            first, *others = meant
            sure |= nouns.below([first])
            for wnid in sorted(nouns.below(others)):
                unsure.setdefault(wnid, f"by a less usual sense of '{label}'")
        elif own:
            content["words"][label] = own
    if not content["synsets"] and not content["words"]:
        raise InputError(
            f"no label exclusions are known for {name}: its class names ({semantics.shown(class_names) or 'none'}) are "
            f"no words or WNIDs; give --exclude-labels a file"
        )
    excluded = {wnid for synsets in content["synsets"].values() for wnid in synsets}
    inside = {word.lower() for wnid in excluded for word in nouns.words[wnid]}
    outside = {word.lower() for wnid, words in nouns.words.items() if wnid not in excluded for word in words}
    content["ambiguous"] = sorted(inside & outside)
    content["doubtful"] = {wnid: why for wnid, why in unsure.items() if wnid not in sure}
    return content


def load_for(id_name: str, class_names: Sequence[str]) -> tuple[semantics.Exclusions, str, tuple[str, ...]]:
    """Exclusions of an ID set, the text they come from (a YAML file's content), and notes for people.

    The packaged file decides where there is one for this name, else WordNet by the class names.

    Raises:
        InputError: no class name can be used.
    """
    packaged = manifests.find("exclusions", id_name)
    if packaged is not None:
        return semantics.load_exclusions(packaged), packaged.read_text(encoding="utf-8"), ()
    content = derive(Path(id_name).name, class_names)
    return semantics.from_synsets(f"WordNet for {content['name']}", content), render(content), notes(content)


def notes(content: dict[str, Any]) -> tuple[str, ...]:
    """What a person should know of derived exclusions: names that WordNet lacks, and names with several senses."""
    lines = []
    unknown = list(content["words"])
    if unknown:
        which = f"class '{unknown[0]}'" if len(unknown) == 1 else f"{len(unknown)} classes ({semantics.shown(unknown)})"
        lines.append(f"no WordNet synset for {which}: excluded by word only")
    several = [label for label, roots in content["roots"].items() if len(roots) > 1]
    if several:
        lines.append(
            f"class names with several meanings, all of them excluded: {semantics.shown(several)} "
            f"({len(several)} in all; `curate exclusions {content['name']}` lists them)"
        )
    return tuple(lines)


def render(content: dict[str, Any]) -> str:
    """The text of an exclusion file."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    body = yaml.dump(content, Dumper=dumper, sort_keys=False, allow_unicode=True, width=1_000, default_flow_style=False)
    return HEADER.format(name=content["name"]) + body


def class_names_of(id_name: str) -> tuple[str, ...]:
    """The class names of an ID set: of a named set without looking for its data, else of the folder or file.

    Raises:
        InputError: there is no such set.
    """
    info = datasets.dataset_info(id_name)
    if info is not None and info.class_names:
        return info.class_names
    if (info is not None and info.id_splits) or Path(id_name).is_dir():
        return datasets.resolve(datasets.id_specs(id_name)[0]).class_names
    return datasets.resolve(id_name).class_names


def explain(id_name: str, corpus: str | None = None) -> dict[str, Any]:
    """What `--exclude-labels auto` excludes for an ID set, as a JSON document.

    `classes` holds for each ID class its synsets with the reasons, the number of WNIDs at or below them, and all their
    words. With `corpus` (a named source or an image spec), `corpus` holds the labels that would be excluded, each with
    its rows and the reason, and `borderline`: those where the reason is doubtful, and labels that are kept although
    they share a word with an excluded one. `text` is the file to edit.

    Raises:
        InputError: no such set, its class names are of no use, or the corpus cannot be found or has no labels.
    """
    name = id_name.partition(":")[0]
    if not Path(id_name).exists() and datasets.dataset_info(name) is not None:
        id_name = name  # whatever split was named
    packaged = manifests.find("exclusions", id_name)
    exclusions, text, lines = load_for(id_name, () if packaged else class_names_of(id_name))
    content = yaml_files.parse(text)
    classes = []
    for label in dict.fromkeys([*content["synsets"], *(content.get("words") or ())]):
        synsets = content["synsets"].get(label, {})
        words = sorted({word for entry in synsets.values() for word in semantics.phrases(entry)})
        own = (content.get("words") or {}).get(label, [])
        roots = (content.get("roots") or {}).get(label, [])
        classes.append({"class": label, "synsets": roots, "wnids": len(synsets), "words": words, "by_word": own})
    result: dict[str, Any] = {
        "id": Path(id_name).name,
        "source": f"manifests/exclusions/{packaged.name}" if packaged else "WordNet 3.0, by class names",
        "classes": classes,
        "without": content.get("without") or [],
        "not_words": content.get("not_words") or {},
        "ambiguous": list(content.get("ambiguous") or []),
        "notes": list(lines),
        "text": text,
    }
    if corpus is not None:
        result["corpus"] = _against(corpus, exclusions)
    return result


def write(path: Path, text: str) -> None:
    """Write an exclusion file for editing.

    Raises:
        InputError: the file exists, is not to be YAML, or cannot be written.
    """
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"--out {path}: must end in .yaml")
    if path.exists():
        raise InputError(f"--out {path}: exists, and may hold your edits; remove it or name another file")
    try:
        write_text(path, text)
    except OSError as error:
        raise InputError(f"--out {path}: cannot be written ({error.strerror}); name another file") from error


# ---- against a corpus -----------------------------------------------------------------------------------------------


def _against(spec: str, exclusions: semantics.Exclusions) -> dict[str, Any]:
    corpus = sources.open_corpus((spec,), 300_000)
    semantics.check_applicable(corpus.class_names, exclusions, spec, require_match=False)
    counts: Counter[int] = Counter()
    for source, offset in zip(corpus.sources, corpus.label_offsets, strict=True):
        for label, rows in label_rows(source).items():
            counts[label + offset if 0 <= label < len(source.class_names) else -1] += rows  # as `curate build` takes it
    excluded = semantics.match_labels(corpus.class_names, exclusions)
    entries = [{"label": corpus.class_names[i], "rows": counts[i], "why": why} for i, why in excluded.items()]
    doubtful = [{**entry, "excluded": True} for entry in entries if str(entry["why"]).endswith(")")]
    kept = [
        {"label": name, "rows": counts[i], "why": why, "excluded": False}
        for i, name in enumerate(corpus.class_names)
        if i not in excluded and (why := near_miss(name, exclusions))
    ]
    return {
        "name": spec,
        "labels": len(corpus.class_names),
        "rows": corpus.num_rows(),
        "rows_without_label": counts[-1],
        "rows_excluded": sum(counts[i] for i in excluded),
        "excluded": entries,
        "borderline": doubtful + kept,
    }


def near_miss(label: str, exclusions: semantics.Exclusions) -> str | None:
    """Why a label that is kept deserves a look: it shares a word with an excluded synset. None where it does not."""
    has_wnid = semantics.WNID.search(label) is not None
    for phrase in semantics.words_of(label):
        last = phrase.rpartition(" ")[2]
        for reading in semantics.singulars(phrase):
            for wnid in exclusions.words.get(reading, ())[:1]:
                return f"kept: another '{reading}' than {exclusions.wnids[wnid][0]}: {wnid}"
        for reading in semantics.singulars(last):
            if not has_wnid and reading != phrase and reading in exclusions.root_words:
                return f"kept: only its last word '{reading}' is a word of an ID class"
    return None


def label_rows(source: datasets.ImageSource) -> Counter[int]:
    """Rows of each label of a set, -1 for none. Of Parquet files only the column of labels is read."""
    counts: Counter[int] = Counter()
    container = source.container
    if not isinstance(container, ParquetImages):
        counts.update(row.label for row in source.rows())
        return counts
    indices = {name: index for index, name in enumerate(container.class_names)}
    for part in container.parts:
        _, column = parquet.find_columns(part.footer[1], container.columns, part)
        if column is None:
            counts[-1] += part.num_rows()
            continue
        with part.open() as file:
            for entry in file.read(columns=[column]).column(0).value_counts().to_pylist():
                value, rows = entry["values"], entry["counts"]
                index = indices.get(value, -1) if isinstance(value, str) else -1 if value is None else int(value)
                counts[index] += rows
    return counts
