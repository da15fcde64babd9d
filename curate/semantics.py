"""Label exclusion: which corpus labels show an ID class, by WNID where a label has one, else by its words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from srood import yaml_files
from srood.errors import InputError

WNID = re.compile(r"(?<![0-9A-Za-z])n\d{8}(?!\d)")
FORMS = "expected a list of labels or WNIDs, or a mapping like manifests/exclusions/cifar10.yaml"
IRREGULAR = {"mice": "mouse", "geese": "goose", "men": "man", "women": "woman", "children": "child"}


@dataclass(frozen=True)
class Exclusions:
    """What an exclusion file says; made by `load_exclusions`.

    wnids: WNID -> (ID class, its first words).
    words: phrase -> the WNIDs that it may mean, most general first. Consulted for labels without a WNID.
    synset_words: WNID -> all its phrases.
    root_words: phrases for an ID class itself, which count even where they have other meanings.
    ambiguous: phrases that also mean something that is not excluded.
    not_words: phrases that never count by themselves.
    own_words: phrase -> ID class, for phrases that the file gives without a WNID. They count for every label.
    doubtful: WNID -> why it may not show the class after all; it is excluded, and the reason says so.
    """

    source: str
    wnids: Mapping[str, tuple[str, str]]
    words: Mapping[str, tuple[str, ...]]
    synset_words: Mapping[str, frozenset[str]]
    root_words: frozenset[str]
    ambiguous: frozenset[str]
    not_words: frozenset[str]
    own_words: Mapping[str, str]
    doubtful: Mapping[str, str] = field(default_factory=dict)


def load_exclusions(path: str | Path) -> Exclusions:
    """Read an exclusion file.

    Accepted forms:

    - what tools/make_exclusions.py and `curate exclusions --out` write: a mapping with `synsets` (ID class -> {WNID:
      words}) and perhaps `roots`, `ambiguous`, `not_words`, `words` (ID class -> phrases) and `doubtful` (WNID -> why);
    - YAML (.yaml, .yml): a list of labels or WNIDs, or a mapping of ID class -> such a list;
    - any other file name: text, one label or WNID a line; empty lines and lines from # on are skipped.

    An entry of a list is a WNID, a WNID with words after it (the words are then a comment), or words; several
    phrases for one thing are separated by commas.

    Raises InputError, naming the file and what is expected, when it cannot be read, is empty or of another form.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a text file of excluded labels ({error})") from None
    content: Any
    if path.suffix.lower() in (".yaml", ".yml"):
        try:
            content = yaml_files.parse(text)
        except yaml.YAMLError as error:
            where = str(error).replace("\n", " ")
            raise InputError(f"{path}: not valid YAML ({where}); {FORMS}") from None
    else:
        lines = (line.strip() for line in text.splitlines())
        content = [line for line in lines if line and not line.startswith("#")]
    if isinstance(content, dict) and "synsets" in content:
        return from_synsets(str(path), content)
    if isinstance(content, list):
        content = {"excluded": content}
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds no list of labels; {FORMS}")
    return from_lists(path, content)


def from_synsets(path: str, content: dict[str, Any]) -> Exclusions:
    """Exclusions from the form with `synsets`; raises InputError for anything malformed."""
    wnids: dict[str, tuple[str, str]] = {}
    words: dict[str, list[str]] = {}
    synset_words: dict[str, frozenset[str]] = {}
    root_words: set[str] = set()
    own = content.get("words") or {}
    if not isinstance(own, dict) or not all(isinstance(entry, list) for entry in own.values()):
        raise InputError(f"{path}: `words` must map ID classes to lists of words")
    if not isinstance(content["synsets"], dict) or not (content["synsets"] or own):
        raise InputError(f"{path}: `synsets` must map ID classes to synsets: `cat: {{n02123045: tabby}}`")
    roots = root_ids(path, content.get("roots", {}))
    for label, synsets in content["synsets"].items():
        if not isinstance(synsets, dict):
            raise InputError(f"{path}: `synsets: {label}` must hold lines like `n02123045: tabby, tabby cat`")
        # Roots first, so that a phrase with several meanings is reported with the most general.
        for wnid in sorted(synsets, key=lambda wnid: (str(wnid) not in roots, str(wnid))):
            if not isinstance(synsets[wnid], str) or not WNID.fullmatch(str(wnid)):
                raise InputError(f"{path}: `synsets: {label}: {wnid}` must look like `n02123045: tabby`")
            wnids.setdefault(wnid, (str(label), synsets[wnid].split(",")[0].strip()))
            synset_words[wnid] = frozenset(phrases(synsets[wnid]))
            for phrase in synset_words[wnid]:
                words.setdefault(phrase, []).append(wnid)
            if wnid in roots:
                root_words |= synset_words[wnid]
    return Exclusions(
        source=path,
        wnids=wnids,
        words={phrase: tuple(dict.fromkeys(meanings)) for phrase, meanings in words.items()},
        synset_words=synset_words,
        root_words=frozenset(root_words),
        ambiguous=word_set(path, content, "ambiguous"),
        not_words=word_set(path, content, "not_words"),
        own_words={
            phrase: str(label) for label, entry in own.items() for word in entry for phrase in phrases(str(word))
        },
        doubtful={str(wnid): str(why) for wnid, why in (content.get("doubtful") or {}).items()},
    )


def root_ids(path: str, roots: Any) -> set[str]:
    """The WNIDs that `roots` names."""
    try:
        return {root["wnid"] for entries in roots.values() for root in entries}
    except (AttributeError, KeyError, TypeError):
        raise InputError(f"{path}: `roots` must map ID classes to lists of `{{wnid: n02121620}}`") from None


def word_set(path: str, content: dict[str, Any], field: str) -> frozenset[str]:
    """The phrases of an optional field: a list, or a mapping whose values are reasons."""
    value = content.get(field) or []
    if not isinstance(value, (list, dict)) or not all(isinstance(word, str) for word in value):
        raise InputError(f"{path}: `{field}` must be a list of words")
    return frozenset(phrase for word in value for phrase in phrases(word))


def from_lists(path: Path, content: dict[Any, Any]) -> Exclusions:
    """Exclusions from lists of labels and WNIDs; raises InputError for anything else."""
    wnids: dict[str, tuple[str, str]] = {}
    own_words: dict[str, str] = {}
    for label, entries in content.items():
        if not isinstance(entries, list) or not entries:
            raise InputError(f"{path}: `{label}` holds no list of labels; {FORMS}")
        for entry in entries:
            if not isinstance(entry, str) or not phrases(entry):
                raise InputError(f"{path}: {entry!r} is neither a label nor a WNID; put quotes around numbers")
            found = WNID.search(entry)
            if found:
                rest = words_of(entry)
                wnids.setdefault(found.group(), (str(label), rest[0] if rest else ""))
            else:
                own_words.update((phrase, str(label)) for phrase in phrases(entry))
    return Exclusions(str(path), wnids, {}, {}, frozenset(), frozenset(), frozenset(), own_words)


def phrases(label: str) -> list[str]:
    """The phrases of a label in plain form: split at commas, lower case, "_" and "-" as spaces."""
    plain = re.sub(r"\([^)]*\)", " ", label.lower()).replace("_", " ").replace("-", " ")
    return [" ".join(part.split()) for part in re.split(r"[,;]", plain) if part.split()]


def words_of(label: str) -> list[str]:
    """The phrases of a label without its WNID."""
    return phrases(WNID.sub(" ", label))


def singulars(phrase: str) -> list[str]:
    """The phrase itself, then what it may be the plural of."""
    head, _, last = phrase.rpartition(" ")
    ends = [last, IRREGULAR.get(last, last)]
    if last.endswith("s") and not last.endswith("ss") and len(last) > 3:
        ends.append(last[:-1])
        if last.endswith("es"):
            ends.append(last[:-2])
        if last.endswith("ies"):
            ends.append(last[:-3] + "y")
        if last.endswith("ves"):
            ends += [last[:-3] + "f", last[:-3] + "fe"]
    return list(dict.fromkeys(f"{head} {end}".strip() for end in ends))


def match_labels(class_names: Sequence[str], exclusions: Exclusions) -> dict[int, str]:
    """Label index -> reason, such as "cat: n02123045 tabby", for each label that shows an ID class.

    A label is a WNID, a WNID with words, or words ("tabby, tabby cat", "tabby_cat", "Tabby Cats"). The WNID
    decides where there is one. Otherwise a phrase counts as a whole ("hot dog" is no dog), singular or plural.
    A phrase with other meanings ("crane") counts when it stands alone, because a missed ID image does more harm
    than a lost outlier, and the reason says so. Beside other phrases ("racer, bike") it counts only if one
    excluded synset has them all or it names an ID class ("cat, feline").
    """
    reasons = {}
    for index, label in enumerate(class_names):
        reason = match_label(label, exclusions)
        if reason:
            reasons[index] = reason
    return reasons


def match_label(label: str, exclusions: Exclusions) -> str | None:
    """The reason why one label is excluded, or None."""
    found = WNID.search(label)
    if found and found.group() in exclusions.wnids:
        id_class, words = exclusions.wnids[found.group()]
        doubt = exclusions.doubtful.get(found.group())
        return f"{id_class}: {found.group()} {words}".strip() + (f" ({doubt})" if doubt else "")
    readings = [singulars(phrase) for phrase in words_of(label)]
    for reading in readings:
        for phrase in reading:
            if phrase in exclusions.own_words:
                return f"{exclusions.own_words[phrase]}: {phrase}"
    return None if found else match_words(readings, exclusions)


def match_words(readings: list[list[str]], exclusions: Exclusions) -> str | None:
    """The reason for a label without WNID, given the readings (singulars) of each of its phrases."""
    unsure = None
    for reading in readings:
        for phrase in reading:
            if phrase in exclusions.not_words:
                break
            for wnid in exclusions.words.get(phrase, ()):
                reason = f"{exclusions.wnids[wnid][0]}: {wnid} {phrase}"
                if phrase not in exclusions.ambiguous:
                    return reason + (f" ({exclusions.doubtful[wnid]})" if wnid in exclusions.doubtful else "")
                if phrase in exclusions.root_words or all(
                    exclusions.synset_words[wnid].intersection(other) for other in readings
                ):
                    unsure = unsure or f"{reason} (by word; it has other meanings)"
    return unsure


def check_applicable(
    class_names: Sequence[str], exclusions: Exclusions, corpus: str = "the corpus", *, require_match: bool = True
) -> None:
    """Raise InputError where the exclusions cannot be applied to the labels of a corpus.

    That is: the corpus has no labels; none of them holds a WNID or a word (they are numbers); or, with
    `require_match`, none of them is excluded. Ask for a match when the user gave the file; with the file of a
    named ID set a corpus may well show none of its classes.
    """
    if not class_names:
        raise InputError(f"{corpus}: has no class names, so {exclusions.source} cannot be applied; exclude none")
    if not any(WNID.search(name) or re.search(r"[^\W\d_]{2}", name) for name in class_names):
        raise InputError(
            f"{corpus}: its labels ({shown(class_names)}) are no words or WNIDs, so {exclusions.source} "
            f"cannot be applied; give the corpus class names or exclude none"
        )
    if require_match and not match_labels(class_names, exclusions):
        entries = shown([*exclusions.own_words, *exclusions.wnids])
        raise InputError(
            f"{exclusions.source}: does not match {corpus}: none of its entries ({entries}) is among the "
            f"{len(class_names)} labels ({shown(class_names)}); write the labels as the corpus does"
        )


def unmatched_entries(class_names: Sequence[str], exclusions: Exclusions) -> list[str]:
    """Entries of a user's list that no label of the corpus has: typing mistakes, mostly. Sorted."""
    labels = {reading for name in class_names for phrase in words_of(name) for reading in singulars(phrase)}
    present = {wnid for name in class_names for wnid in WNID.findall(name)}
    return sorted((set(exclusions.own_words) - labels) | (set(exclusions.wnids) - present))


def shown(names: Iterable[str]) -> str:
    """The first three names, for an error message."""
    names = list(names)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
